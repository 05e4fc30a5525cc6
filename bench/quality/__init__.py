"""Quality of generated images: the classifier that judges them and the distances built on it."""
