// Writes the frame between two PNG images, with a model of ifrnet-deploy in OpenVINO.
//
// interpolate MODEL.onnx FRAME0.png FRAME1.png OUTPUT.png [TIME]
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <openvino/openvino.hpp>

#include "command.hpp"

using Sides = std::pair<std::size_t, std::size_t>;  // Pixels before and after.

// A float model takes frames whose sides are multiples of `divisor`.
static Sides padding(std::size_t side, std::size_t divisor) {
    const std::size_t missing = (divisor - side % divisor) % divisor;
    return {missing / 2, missing - missing / 2};
}

// (1, 3, H, W) in [0, 1], with the border pixels repeated.
static ov::Tensor planes(const Image& image, Sides rows, Sides columns) {
    const std::size_t height = rows.first + image.height + rows.second;
    const std::size_t width = columns.first + image.width + columns.second;
    ov::Tensor tensor(ov::element::f32, {1, 3, height, width});
    float* sample = tensor.data<float>();
    const auto inside = [](std::size_t at, std::size_t before, std::size_t side) {
        return std::min(std::max(at, before) - before, side - 1);
    };
    for (std::size_t channel = 0; channel < 3; ++channel)
        for (std::size_t y = 0; y < height; ++y)
            for (std::size_t x = 0; x < width; ++x) {
                const std::size_t row = inside(y, rows.first, image.height);
                const std::size_t column = inside(x, columns.first, image.width);
                *sample++ = image.rgb[(row * image.width + column) * 3 + channel] / 255.0f;
            }
    return tensor;
}

// The frame inside the padding of (1, 3, H, W) in [0, 1].
static Image frame_of(const ov::Tensor& tensor, std::size_t height, std::size_t width,
                      std::size_t top, std::size_t left) {
    Image image{height, width, std::vector<std::uint8_t>(height * width * 3)};
    const ov::Shape shape = tensor.get_shape();
    for (std::size_t y = 0; y < height; ++y)
        for (std::size_t x = 0; x < width; ++x)
            for (std::size_t channel = 0; channel < 3; ++channel) {
                const std::size_t at = (channel * shape[2] + top + y) * shape[3] + left + x;
                image.rgb[(y * width + x) * 3 + channel] =
                    static_cast<std::uint8_t>(std::nearbyint(tensor.data<float>()[at] * 255.0f));
            }
    return image;
}

static Image interpolate(const std::string& path, const Image& frame0, const Image& frame1,
                         float time) {
    ov::Core core;
    const auto model = core.read_model(read_artefact(path), ov::Tensor());
    const auto metadata = [&](const std::string& key) {
        return model->get_rt_info<std::string>("framework", "ifrnet." + key);
    };
    if (metadata("format_version") != "1")
        throw std::runtime_error(path + " has another format than 1: take a newer program");
    if (metadata("steps_per_call") != "1" || metadata("pairs_per_call") != "1")
        throw std::runtime_error(path + " takes several frames at once: export it without them");
    if (metadata("time_steps") == "midpoint" && time != 0.5f)
        throw std::runtime_error(path + " knows the time 0.5 only");

    // The precision is stated: on some CPUs OpenVINO's default is bfloat16.
    auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32));
    auto request = compiled.create_infer_request();
    const auto set = [&](const char* name, const ov::Tensor& tensor) {
        if (!model->input(name).get_partial_shape().compatible(tensor.get_shape()))
            throw std::runtime_error(path + " was exported for frames of another size");
        request.set_tensor(name, tensor);
    };
    ov::Tensor timestep(ov::element::f32, {1, 1, 1, 1});
    *timestep.data<float>() = time;
    set("timestep", timestep);
    if (metadata("io") == "frames") {  // Bytes of any size; the graph pads.
        const ov::Shape shape{1, frame0.height, frame0.width, 3};
        auto* pixels0 = const_cast<std::uint8_t*>(frame0.rgb.data());  // OpenVINO only reads them.
        auto* pixels1 = const_cast<std::uint8_t*>(frame1.rgb.data());
        set("img0", {ov::element::u8, shape, pixels0});
        set("img1", {ov::element::u8, shape, pixels1});
        request.infer();
        const ov::Tensor imgt = request.get_tensor("imgt");
        const auto* first = imgt.data<std::uint8_t>();
        return {frame0.height, frame0.width, {first, first + imgt.get_size()}};
    }
    const std::size_t divisor = std::stoul(metadata("divisor"));
    const Sides rows = padding(frame0.height, divisor), columns = padding(frame0.width, divisor);
    set("img0", planes(frame0, rows, columns));
    set("img1", planes(frame1, rows, columns));
    request.infer();
    return frame_of(request.get_tensor("imgt"), frame0.height, frame0.width, rows.first,
                    columns.first);
}

int main(int count, char** arguments) { return run(count, arguments, interpolate); }
