"use strict";
// The walk: one slider for the pictures and the signals of both samplers; nothing is computed that was not recorded.
if (document.getElementById("walk-data")) {
  const data = JSON.parse(document.getElementById("walk-data").textContent);
  const section = document.getElementById("walker");
  const slider = document.getElementById("frame");
  const play = document.getElementById("play");
  const now = document.getElementById("now");
  const marker = document.getElementById("marker");
  const last = data.frames - 1;
  const [middle, late] = section.dataset.phases.split(",").map(Number);
  const films = [...section.querySelectorAll("canvas")].map((canvas) => {
    const film = new Image();
    film.src = data.images[canvas.dataset.way][canvas.dataset.kind];
    film.decode().then(show);
    return { canvas, film };
  });
  let timer = null;

  const says = (frame) =>
    frame === last ? "the finished sample"
    : frame < middle ? "early: noise; the estimate is near the average of all there could be"
    : frame < late ? "middle: the form is decided"
    : "late: the form stays, detail comes and the rest of the noise goes";

  function points(values, range) {
    return values.map((v, i) => `${(i * 300 / (values.length - 1)).toFixed(1)},${(50 - v / 100 * 50 / range).toFixed(1)}`).join(" ");
  }

  function show() {
    const frame = Number(slider.value);
    const { width, height, samples } = data;
    for (const { canvas, film } of films) {
      if (!film.complete) continue;
      const paper = canvas.getContext("2d");
      paper.clearRect(0, 0, canvas.width, canvas.height);
      for (let i = 0; i < samples; i += 1) {
        paper.drawImage(film, i * width, frame * height, width, height, i * (width + 2), 0, width, height);
      }
    }
    for (const line of section.querySelectorAll("[data-line]")) {
      const values = data.signals[line.dataset.way][line.dataset.line][frame];
      line.setAttribute("points", points(values, line.dataset.line === "noise" ? 4 : 2.6));
    }
    const where = frame === last ? "done" : `t = ${data.timesteps[frame]}`;
    now.replaceChildren(Object.assign(document.createElement("strong"), { textContent: where }), ` · ${says(frame)}`);
    slider.setAttribute("aria-valuetext", `${where}, ${says(frame)}`);
    marker.setAttribute("x1", frame);
    marker.setAttribute("x2", frame);
  }

  function go(frame) {
    slider.value = Math.max(0, Math.min(last, frame));
    show();
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }
  function start() {
    if (Number(slider.value) === last) go(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      go(Number(slider.value) + 1);
      if (Number(slider.value) === last) pause();
    }, 140);
  }
  const toggle = () => (timer ? pause() : start());

  play.addEventListener("click", toggle);
  document.getElementById("back").addEventListener("click", () => { pause(); go(Number(slider.value) - 1); });
  document.getElementById("step").addEventListener("click", () => { pause(); go(Number(slider.value) + 1); });
  document.getElementById("reset").addEventListener("click", () => { pause(); go(0); });
  slider.addEventListener("input", () => { pause(); show(); });
  section.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -data.frames, End: data.frames };
    if (event.key === " " && event.target.tagName !== "BUTTON") toggle();
    else if (event.key in steps) { pause(); go(Number(slider.value) + steps[event.key]); }
    else return;
    event.preventDefault();
  });
  section.hidden = false;
  show();
}
