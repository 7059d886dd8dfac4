"""The container images of the steps; no other file names one."""

# Every step on a CPU, training included. Built by `make image`.
CPU = "flowers-cpu:latest"
