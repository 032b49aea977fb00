// PNG images, and artefacts with their manifest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct Image {
    std::size_t height, width;
    std::vector<std::uint8_t> rgb;  // height x width x 3, 0 to 255, rows from the top.
};

// Reads a PNG file as 8-bit RGB. Throws std::runtime_error.
Image read_png(const std::string& path);

// Throws std::runtime_error.
void write_png(const std::string& path, const Image& image);

// The content of an artefact, whose SHA-256 is that of the manifest `path`.json beside it.
// Throws std::runtime_error if it is not, or if a file is missing.
std::string read_artefact(const std::string& path);
