import bench
