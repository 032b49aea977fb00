"""Arrays of other libraries, over host memory, which NumPy and torch can share without a GPU."""

import ctypes
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import torch

from paths import ROOT
from runtime.backends.cuda.arrays import (
    DeviceFrame,
    _managed_tensor,
    _view_from_capsule,
    device_pair,
    device_view,
    is_device_array,
)
from runtime.errors import FrameError

DTYPES = ["uint8", "uint16", "float16", "float32"]
CONSUMERS = pytest.mark.parametrize("consume", [np.from_dlpack, torch.from_dlpack])
VERSIONS = pytest.mark.parametrize("max_version", [None, (1, 0)], ids=["dlpack0", "dlpack1"])
DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class HostFrame(DeviceFrame):
    dlpack_device_type = 1


class Array:
    """An array with `__cuda_array_interface__`, over host memory."""

    def __init__(self, **changed):
        self.memory = picture("uint8")
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": self.memory.shape,
            "typestr": "|u1",
            "data": (self.memory.ctypes.data, True),
            "strides": None,
            "stream": None,
        } | changed


class Exporter:
    """An array with `__dlpack__`, over host memory."""

    def __init__(self, device_type=2):
        self.memory = picture("uint8")
        self.device_type = device_type
        self.asked = []

    def __dlpack_device__(self):
        return self.device_type, 0

    def __dlpack__(self, *, stream, max_version=None):
        self.asked.append((stream, max_version))
        return self.memory.__dlpack__(max_version=max_version)


class OldExporter(Exporter):
    def __dlpack__(self, *, stream):
        self.asked.append(stream)
        return self.memory.__dlpack__()


class RequiresGrad(Exporter):
    """A tensor on the GPU that requires grad, with the errors of torch."""

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")


class RefusesDlpack(Exporter):
    def __dlpack__(self, **asked):
        raise BufferError("Can't export tensors that require gradient")


def picture(dtype):
    return np.arange(2 * 5 * 3).reshape(2, 5, 3).astype(dtype)


def frame_over(memory, releases, kind=HostFrame, *, device=0, stream=0, wait=None):
    return kind(
        memory.ctypes.data,
        memory.shape,
        memory.dtype,
        device=device,
        stream=stream,
        release=lambda: releases.append(memory),
        wait=wait,
    )


def read(view):
    count = view.dtype.itemsize * int(np.prod(view.shape))
    return np.frombuffer(ctypes.string_at(view.pointer, count), view.dtype).reshape(view.shape)


@CONSUMERS
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_consumer_shares_the_frames_memory(consume, dtype):
    memory = picture(dtype)
    array = consume(frame_over(memory, []))
    np.testing.assert_array_equal(np.asarray(array), picture(dtype), strict=True)
    memory[1, 4, 2] = 7
    assert array[1, 4, 2] == 7


@CONSUMERS
def test_the_memory_is_released_once_with_the_last_array(consume):
    releases = []
    frame = frame_over(picture("uint8"), releases)
    arrays = [consume(frame), consume(frame)]
    del frame
    arrays.pop()
    assert not releases
    np.testing.assert_array_equal(np.asarray(arrays[0]), picture("uint8"))
    arrays.pop()
    assert len(releases) == 1


@VERSIONS
def test_torch_consumes_both_kinds_of_capsule(max_version):
    releases = []
    capsule = frame_over(picture("uint8"), releases).__dlpack__(max_version=max_version)
    tensor = torch.from_dlpack(capsule)
    assert "used_dltensor" in repr(capsule)
    del capsule
    assert not releases
    np.testing.assert_array_equal(tensor.numpy(), picture("uint8"))
    del tensor
    assert len(releases) == 1


@VERSIONS
def test_an_unused_capsule_keeps_the_memory_and_releases_it_once(max_version):
    releases = []
    capsule = frame_over(picture("uint8"), releases).__dlpack__(max_version=max_version)
    assert not releases
    del capsule
    assert len(releases) == 1


@VERSIONS
def test_a_capsule_dropped_by_an_exception_does_not_hide_the_exception(max_version):
    releases = []
    frame = frame_over(picture("uint8"), releases)
    with pytest.raises(TypeError, match="PyCapsule"):  # Set if int() drops the last reference.
        int(frame.__dlpack__(max_version=max_version))
    del frame
    assert len(releases) == 1


def test_a_frame_that_nobody_consumed_is_released_once():
    releases = []
    frame = frame_over(picture("uint8"), releases)
    assert not releases
    del frame
    assert len(releases) == 1


def test_a_thousand_frames_are_all_released_once():
    releases = []
    for number in range(1000):
        memory = np.full((2, 2, 3), number, np.uint16)
        frame = frame_over(memory, releases)
        arrays = [np.from_dlpack(frame), torch.from_dlpack(frame)]
        capsules = [frame.__dlpack__(), frame.__dlpack__(max_version=(1, 0))]
        assert [int(array[0, 0, 0]) for array in arrays] == [number, number]
        del frame, arrays, capsules
    assert [int(memory[0, 0, 0]) for memory in releases] == list(range(1000))


@CONSUMERS
def test_a_consumer_may_drop_its_array_on_another_thread(consume):
    releases = []
    arrays = [consume(frame_over(picture("uint8"), releases))]
    thread = threading.Thread(target=arrays.clear)
    thread.start()
    thread.join()
    assert len(releases) == 1


def test_arrays_that_live_until_the_process_ends_are_not_released():
    # builtins is cleared last, after the module of the frames.
    code = (
        "import builtins, ctypes, numpy, torch\n"
        "from runtime.backends.cuda.arrays import DeviceFrame\n"
        "class HostFrame(DeviceFrame): dlpack_device_type = 1\n"
        "def frame():\n"
        "    memory = (ctypes.c_uint8 * 12)()\n"
        "    return HostFrame(ctypes.addressof(memory), (2, 2, 3), 'uint8', device=0, stream=0,\n"
        "                     release=lambda: print('released', len(memory), flush=True))\n"
        "builtins.kept = [frame(), torch.from_dlpack(frame()), numpy.from_dlpack(frame()),\n"
        "                 frame().__dlpack__(), frame().__dlpack__(max_version=(1, 0))]\n"
        "frame()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "released 12\n", "")


@pytest.mark.parametrize(
    ("max_version", "name"),
    [(None, "dltensor"), ((0, 8), "dltensor"), ((1, 0), "dltensor_versioned"),
     ((1, 3), "dltensor_versioned"), ((2, 0), "dltensor_versioned")],
)  # fmt: skip
def test_the_capsule_has_the_version_that_the_consumer_supports(max_version, name):
    capsule = frame_over(picture("uint8"), []).__dlpack__(max_version=max_version)
    assert f'"{name}"' in repr(capsule)


@VERSIONS
def test_a_capsule_names_the_gpu_of_the_frame(max_version):
    memory = picture("float16")
    frame = frame_over(memory, [], DeviceFrame, device=3)
    capsule = frame.__dlpack__(max_version=max_version)
    assert frame.__dlpack_device__() == (2, 3)
    assert _managed_tensor(capsule)[1].tensor.device_type == 2
    view = _view_from_capsule(capsule, "frame")
    assert (view.pointer, view.device) == (memory.ctypes.data, 3)
    assert (view.shape, view.dtype) == ((2, 5, 3), np.float16)


@pytest.mark.parametrize(
    ("asked", "waited"), [(None, [0]), (1, [0]), (2, [2]), (94, [94]), (77, []), (-1, [])]
)
def test_the_consumers_stream_waits_unless_it_is_the_frames_or_declines(asked, waited):
    waits = []
    frame = frame_over(picture("uint8"), [], stream=77, wait=waits.append)
    frame.__dlpack__(stream=asked)
    assert waits == waited


def test_the_legacy_default_stream_needs_no_wait_for_itself():
    waits = []
    frame = frame_over(picture("uint8"), [], stream=0, wait=waits.append)
    frame.__dlpack__(stream=1)
    frame.__dlpack__()
    assert waits == []


def test_a_complete_frame_needs_no_wait():
    assert "dltensor" in repr(frame_over(picture("uint8"), []).__dlpack__(stream=94))


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"copy": True}, "without a copy"), ({"dl_device": (1, 0)}, r"device \(2, 3\).*\(1, 0\)"),
     ({"dl_device": (2, 0)}, r"asked for on \(2, 0\)"), ({"stream": 0}, "forbids stream 0")],
)  # fmt: skip
def test_requests_that_need_a_copy_or_are_ambiguous_are_refused(asked, message):
    frame = frame_over(picture("uint8"), [], DeviceFrame, device=3)
    with pytest.raises(BufferError, match=message):
        frame.__dlpack__(**asked)


def test_a_request_for_the_frames_own_device_is_accepted():
    frame = frame_over(picture("uint8"), [], DeviceFrame, device=3)
    assert "dltensor" in repr(frame.__dlpack__(dl_device=(2, 3), copy=False))


@pytest.mark.parametrize(("stream", "written"), [(0, 1), (2, 2), (77, 77)])
def test_a_frame_has_the_cuda_array_interface(stream, written):
    memory = picture("float32")
    frame = frame_over(memory, [], stream=stream)
    assert frame.nbytes == 120
    assert frame.__cuda_array_interface__ == {
        "version": 3,
        "shape": (2, 5, 3),
        "typestr": "<f4",
        "data": (memory.ctypes.data, False),
        "strides": None,
        "stream": written,
    }


def test_a_frame_can_be_viewed_and_lives_as_long_as_the_view():
    releases = []
    view = device_view(frame_over(picture("float16"), releases, stream=77), stream=5, name="frame0")
    np.testing.assert_array_equal(read(view), picture("float16"), strict=True)
    assert (view.stream, releases) == (77, [])
    del view
    assert len(releases) == 1


@pytest.mark.parametrize(
    "value",
    [Array(), Exporter(), Exporter(device_type=13), RequiresGrad(),
     frame_over(picture("uint8"), [], DeviceFrame)],
)  # fmt: skip
def test_arrays_on_the_gpu_are_recognised(value):
    assert is_device_array(value) is True


@pytest.mark.parametrize(
    "value",
    [None, [1], "cuda", picture("uint8"), torch.zeros(3), torch.zeros(3, requires_grad=True),
     torch.zeros(3, device="meta"), Exporter(device_type=1), Exporter(device_type=3),
     Exporter(device_type=10)],
)  # fmt: skip
def test_other_objects_are_not_recognised_as_arrays_on_the_gpu(value):
    assert is_device_array(value) is False
    with pytest.raises(FrameError, match=f"frame1 is a {type(value).__name__}, not on a GPU"):
        device_view(value, stream=0, name="frame1")


def test_a_view_by_the_cuda_array_interface_keeps_its_array():
    array = Array()
    view = device_view(array, stream=0, name="frame0")
    assert view.owner is array
    assert (view.device, view.stream) == (None, None)
    np.testing.assert_array_equal(read(view), picture("uint8"), strict=True)


@pytest.mark.parametrize(("written", "handle"), [(None, None), (1, 0), (2, 2), (77, 77)])
def test_the_stream_of_the_cuda_array_interface_becomes_a_handle(written, handle):
    assert device_view(Array(stream=written), stream=5, name="frame0").stream == handle


def test_version_2_of_the_cuda_array_interface_names_no_stream():
    array = Array(version=2)
    del array.__cuda_array_interface__["stream"], array.__cuda_array_interface__["strides"]
    assert device_view(array, stream=5, name="frame0").stream is None


@pytest.mark.parametrize(
    ("typestr", "dtype"),
    [("|u1", "uint8"), ("<u1", "uint8"), ("<u2", "uint16"), ("<f2", "float16"), ("<f4", "float32")],
)
def test_the_types_of_frames_are_read(typestr, dtype):
    assert device_view(Array(typestr=typestr), stream=0, name="frame0").dtype == dtype


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((2, 5, 3), (15, 3, 1)), ((2, 1, 3), (3, 999, 1)), ((1, 5, 3), (0, 3, 1))],
)
def test_strides_without_gaps_are_contiguous(shape, strides):
    view = device_view(Array(shape=shape, strides=strides), stream=0, name="frame0")
    assert view.shape == shape


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"version": 1}, "has __cuda_array_interface__ version 1, not 2 or 3"),
     ({"version": 4}, "has __cuda_array_interface__ version 4, not 2 or 3"),
     ({"mask": object()}, "has a mask: fill"),
     ({"stream": 0}, "has stream 0, which"),
     ({"typestr": "<f8"}, "is <f8: frames on the GPU are uint8, uint16, float16, float32"),
     ({"typestr": ">u2"}, "is >u2: frames"),
     ({"shape": (0, 5, 3)}, r"has shape \(0, 5, 3\): every side"),
     ({"shape": (-2, 5, 3)}, r"has shape \(-2, 5, 3\): every side"),
     ({"data": (0, False)}, "has a null pointer"),
     ({"strides": (20, 3, 1)}, r"is a view with strides \(20, 3, 1\) in bytes: make it contiguous"),
     ({"strides": (1, 2, 10)}, r"is a view with strides \(1, 2, 10\)"),
     ({"strides": (-15, 3, 1)}, r"is a view with strides \(-15, 3, 1\)"),
     ({"strides": (15, 3, 0)}, r"is a view with strides \(15, 3, 0\)")],
)  # fmt: skip
def test_an_unsuitable_array_is_refused(changed, message):
    with pytest.raises(FrameError, match=f"^frame1 {message}"):
        device_view(Array(**changed), stream=0, name="frame1")


@pytest.mark.parametrize("kind", [RequiresGrad, RefusesDlpack])
def test_the_error_for_a_tensor_that_requires_grad_names_detach(kind):
    with pytest.raises(FrameError, match=r"frame0 cannot .*grad.*: call detach\(\)"):
        device_view(kind(), stream=0, name="frame0")


@pytest.mark.parametrize(("handle", "written"), [(0, 1), (2, 2), (77, 77)])
def test_a_dlpack_exporter_gets_the_stream_that_has_to_wait(handle, written):
    exporter, old = Exporter(), OldExporter()
    for array in (exporter, old):
        view = device_view(array, stream=handle, name="frame0")
        assert view.stream is None
        np.testing.assert_array_equal(read(view), picture("uint8"), strict=True)
    assert exporter.asked == [(written, (1, 0))]
    assert old.asked == [written]


@VERSIONS
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("dtype", DTYPES)
def test_capsules_of_numpy_and_torch_are_read(make, dtype, max_version):
    array = make(picture(dtype))[1:]
    view = _view_from_capsule(array.__dlpack__(max_version=max_version), "frame0")
    np.testing.assert_array_equal(read(view), picture(dtype)[1:], strict=True)
    assert view.device == 0


@VERSIONS
def test_a_byte_offset_is_added_to_the_pointer(max_version):
    memory = picture("float32")
    capsule = memory[1:].__dlpack__(max_version=max_version)
    tensor = _managed_tensor(capsule)[1].tensor
    tensor.data, tensor.byte_offset = memory.ctypes.data, memory.strides[0]
    np.testing.assert_array_equal(read(_view_from_capsule(capsule, "frame0")), memory[1:])


def test_strides_left_out_mean_contiguous():
    capsule = picture("uint8").__dlpack__()
    _managed_tensor(capsule)[1].tensor.strides = None
    np.testing.assert_array_equal(read(_view_from_capsule(capsule, "frame0")), picture("uint8"))


def test_managed_memory_has_no_gpu():
    capsule = picture("uint8").__dlpack__()
    _managed_tensor(capsule)[1].tensor.device_type = 13
    assert _view_from_capsule(capsule, "frame0").device is None


@VERSIONS
def test_the_deleter_is_called_once_with_the_last_reference(max_version):
    array = picture("uint8")
    alive = weakref.ref(array)
    capsule = array.__dlpack__(max_version=max_version)
    managed, calls = _managed_tensor(capsule)[1], []
    original = DELETER(managed.deleter)

    @DELETER
    def counted(address):
        calls.append(address)
        original(address)

    managed.deleter = ctypes.cast(counted, ctypes.c_void_p).value
    expected = ctypes.addressof(managed)
    view = _view_from_capsule(capsule, "frame0")
    owner = view.owner
    del array, capsule, view
    assert calls == []
    assert alive() is not None
    del owner
    assert calls == [expected]
    assert alive() is None


def test_a_tensor_without_a_deleter_is_read():
    memory = picture("uint8")
    capsule = memory.__dlpack__()
    _managed_tensor(capsule)[1].deleter = None
    np.testing.assert_array_equal(read(_view_from_capsule(capsule, "frame0")), memory)


def test_a_thousand_views_free_what_they_consumed():
    memory = picture("uint8")
    before = sys.getrefcount(memory)
    for _ in range(1000):
        _view_from_capsule(memory.__dlpack__(), "frame0")
        _view_from_capsule(memory.__dlpack__(max_version=(1, 0)), "frame0")
    assert sys.getrefcount(memory) == before


@VERSIONS
@pytest.mark.parametrize(
    ("array", "message"),
    [(torch.zeros(2, 2, 3, dtype=torch.bfloat16), "is bfloat16: frames on the GPU are"),
     (torch.zeros(2, 2, 3, dtype=torch.int64), "is int64: frames"),
     (torch.zeros(2, 2, 3, dtype=torch.float8_e5m2), "is DLPack type 12, bits 8: frames"),
     (torch.zeros(3, 2, 2).permute(1, 2, 0), r"is a view with strides \(8, 4, 16\) in bytes"),
     (picture("uint16")[:, ::2], r"is a view with strides \(30, 12, 2\) in bytes"),
     (picture("uint8")[:0], r"has shape \(0, 5, 3\)")],
)  # fmt: skip
def test_a_refused_capsule_stays_unused(array, message, max_version):
    capsule = array.__dlpack__(max_version=max_version)
    with pytest.raises(FrameError, match=f"^frame0 {message}"):
        _view_from_capsule(capsule, "frame0")
    assert "used" not in repr(capsule)


def test_a_refused_capsule_is_freed():
    array = picture("int64")
    before = sys.getrefcount(array)
    capsule = array.__dlpack__()
    with pytest.raises(FrameError, match="int64"):
        _view_from_capsule(capsule, "frame0")
    assert sys.getrefcount(array) == before + 1
    del capsule
    assert sys.getrefcount(array) == before


def test_vector_types_are_refused():
    capsule = picture("uint8").__dlpack__()
    _managed_tensor(capsule)[1].tensor.lanes = 4
    with pytest.raises(FrameError, match="frame0 is uint8x4: frames"):
        _view_from_capsule(capsule, "frame0")


def test_a_dlpack_of_another_major_version_is_refused():
    capsule = picture("uint8").__dlpack__(max_version=(1, 0))
    _managed_tensor(capsule)[1].major = 2
    with pytest.raises(FrameError, match=r"frame0 is exported as DLPack 2\.0, not 1: use another"):
        _view_from_capsule(capsule, "frame0")


def test_a_capsule_is_consumed_once():
    capsule = picture("uint8").__dlpack__()
    view = _view_from_capsule(capsule, "frame0")
    with pytest.raises(BufferError, match=r"used_dltensor.* is not an unused DLPack capsule"):
        _view_from_capsule(capsule, "frame0")
    np.testing.assert_array_equal(read(view), picture("uint8"))


@pytest.mark.parametrize(
    ("changed", "other"),
    [
        ({"typestr": "<u2"}, r"uint16 \(20, 16, 3\)"),
        ({"shape": (16, 20, 3)}, r"uint8 \(16, 20, 3\)"),
    ],
)
def test_frames_on_the_gpu_of_two_sizes_or_types_are_refused(changed, other):
    one = {"shape": (20, 16, 3)}
    message = rf"^frame0 is uint8 \(20, 16, 3\), frame1 is {other}: both frames of a pair have one"
    with pytest.raises(FrameError, match=message):
        device_pair(Array(**one), Array(**one | changed), stream=0)


@pytest.mark.parametrize("shape", [(15, 16, 3), (16, 15, 3), (16, 16, 4), (16, 16)])
def test_the_frame_on_the_gpu_that_is_too_small_or_has_no_three_channels_is_named(shape):
    good, bad = Array(shape=(16, 16, 3)), Array(shape=shape)
    for name, pair in {"frame0": (bad, good), "frame1": (good, bad)}.items():
        with pytest.raises(FrameError, match=rf"^{name} has shape .*expected RGB .* least 16x16"):
            device_pair(*pair, stream=0)
    assert device_pair(good, good, stream=0)[1].shape == (16, 16, 3)
