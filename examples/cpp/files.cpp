#include "files.hpp"

#include <fstream>
#include <iterator>
#include <regex>
#include <stdexcept>

#include <openssl/evp.h>
#include <png.h>

Image read_png(const std::string& path) {
    png_image png{};
    png.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_file(&png, path.c_str()))
        throw std::runtime_error(path + " cannot be read: " + png.message);
    png.format = PNG_FORMAT_RGB;
    Image image{png.height, png.width, std::vector<std::uint8_t>(PNG_IMAGE_SIZE(png))};
    const png_color black{};  // Behind transparent pixels.
    if (!png_image_finish_read(&png, &black, image.rgb.data(), 0, nullptr))
        throw std::runtime_error(path + " cannot be read: " + png.message);
    return image;
}

void write_png(const std::string& path, const Image& image) {
    png_image png{};
    png.version = PNG_IMAGE_VERSION;
    png.height = static_cast<png_uint_32>(image.height);
    png.width = static_cast<png_uint_32>(image.width);
    png.format = PNG_FORMAT_RGB;
    if (!png_image_write_to_file(&png, path.c_str(), 0, image.rgb.data(), 0, nullptr))
        throw std::runtime_error(path + " cannot be written: " + png.message);
}

static std::string content_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string content{std::istreambuf_iterator<char>(file), {}};
    if (!file) throw std::runtime_error(path + " cannot be read");
    return content;
}

static std::string sha256(const std::string& content) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    if (!EVP_Digest(content.data(), content.size(), digest, &size, EVP_sha256(), nullptr))
        throw std::runtime_error("OpenSSL computes no SHA-256");
    std::string digits;
    for (unsigned int i = 0; i < size; ++i)
        for (int shift : {4, 0}) digits += "0123456789abcdef"[digest[i] >> shift & 15];
    return digits;
}

std::string read_artefact(const std::string& path) {
    const std::string artefact = content_of(path), manifest = content_of(path + ".json");
    // A program with a JSON library reads all fields; see docs/onnx_contract.md.
    const std::regex field(R"re("artefact_sha256"\s*:\s*"([0-9a-f]{64})")re");
    std::smatch found;
    if (!std::regex_search(manifest, found, field))
        throw std::runtime_error(path + ".json has no artefact_sha256");
    if (found[1] != sha256(artefact))
        throw std::runtime_error(path + " is not the file of its manifest: build it again");
    return artefact;
}
