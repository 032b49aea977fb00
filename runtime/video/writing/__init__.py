"""Frames and packets, written as a video file, a folder of PNGs or a Y4M stream."""
