#include "command.hpp"

#include <algorithm>
#include <iostream>
#include <stdexcept>

int run(int count, char** arguments, Interpolate interpolate) try {
    if (count != 5 && count != 6)
        throw std::runtime_error("usage: MODEL FRAME0.png FRAME1.png OUTPUT.png [TIME]");
    const float time = count == 6 ? std::stof(arguments[5]) : 0.5f;
    if (!(time > 0 && time < 1)) throw std::runtime_error("TIME is not between 0 and 1");
    const Image frame0 = read_png(arguments[2]), frame1 = read_png(arguments[3]);
    if (frame0.height != frame1.height || frame0.width != frame1.width)
        throw std::runtime_error("the frames have different sizes");
    if (std::min(frame0.height, frame0.width) < 16)
        throw std::runtime_error("the frames are smaller than 16x16 pixels");
    write_png(arguments[4], interpolate(arguments[1], frame0, frame1, time));
    return 0;
} catch (const std::invalid_argument&) {
    std::cerr << "TIME is not a number\n";
    return 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
}
