"""The parts of Triton's client that the tests of its backend stand in for."""


class Registry:
    """The part of the client that shared memory is registered with."""

    def __init__(self):
        self.known = {}

    def register_cuda_shared_memory(self, name, raw_handle, device_id, byte_size):
        self.known[name] = raw_handle, device_id, byte_size

    def unregister_cuda_shared_memory(self, name):
        del self.known[name]


class Client(Registry):
    """A server that answers when the test says so."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def register_system_shared_memory(self, name, key, byte_size):
        self.known[name] = key, byte_size

    def unregister_system_shared_memory(self, name):
        del self.known[name]

    def async_infer(self, model, inputs, callback, **options):
        del model
        self.sent.append((inputs, options["outputs"], callback))

    def close(self):
        pass
