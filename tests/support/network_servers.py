"""Servers on the loopback interface that send a video: HTTP, RTSP, and MPEG-TS over UDP."""

import contextlib
import re
import socket
import threading
import time
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import av

from video_clips import pictures


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def http_server(folder):
    """Serves the files of a folder; yields the address of the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port(kind=socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


_NULL_PACKET = bytes([0x47, 0x1F, 0xFF, 0x10]) + bytes([0xFF]) * 184
"""A packet of MPEG-TS that readers skip: synchronisation byte, identifier 0x1FFF, stuffing."""


def _wait_for_reader(port, timeout=30):
    """Returns once a socket receives on the port: what is sent before that is lost."""
    end = time.monotonic() + timeout
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", port))
        while time.monotonic() < end:
            # Where no socket receives, the first packet is refused, and the second raises that.
            with contextlib.suppress(ConnectionRefusedError):
                probe.send(_NULL_PACKET)
                time.sleep(0.01)
                probe.send(_NULL_PACKET)
                return
            time.sleep(0.01)


def _send_once_read(port, count, pace):
    _wait_for_reader(port)
    address = f"udp://127.0.0.1:{port}?pkt_size=1316"
    _send(address, "mpegts", count, pace=pace)


def _send(address, container, count, *, pace):
    """Encodes and sends `count` frames at 25 a second, `pace` seconds apart."""
    options = {"g": "5", "bf": "0", "tune": "zerolatency", "x264-params": "repeat-headers=1"}
    with av.open(address, "w", format=container) as out:
        stream = out.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, frame in enumerate(pictures(count)):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
            time.sleep(pace)
        out.mux(stream.encode(None))


@contextlib.contextmanager
def udp_sender(count, *, pace=0.005):
    """Sends MPEG-TS from the moment that the address, which is yielded, is read from."""
    port = free_port()
    thread = threading.Thread(target=_send_once_read, args=(port, count, pace))
    thread.start()
    try:
        yield f"udp://127.0.0.1:{port}?timeout=1000000"
    finally:
        thread.join()


_SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=test
c=IN IP4 127.0.0.1
t=0 0
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
a=control:trackID=0
"""


@contextlib.contextmanager
def rtsp_server(count, *, pace=0.005):
    """A server for one client, which gets H.264 over RTP and UDP; yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_serve_rtsp, args=(listener, count, pace))
    thread.start()
    try:
        yield f"rtsp://user:secret@127.0.0.1:{listener.getsockname()[1]}/camera?key=1"
    finally:
        thread.join()
        listener.close()


def _serve_rtsp(listener, count, pace):
    listener.settimeout(10)
    with listener.accept()[0] as client, client.makefile("rb") as requests:
        client.settimeout(10)
        port = None
        while True:
            lines = []
            while line := requests.readline().strip().decode():
                lines.append(line)
            if not lines:
                return
            method = lines[0].split()[0]
            number = next(line for line in lines if line.lower().startswith("cseq"))
            answer, body = ["RTSP/1.0 200 OK", number, "Session: 1"], ""
            if method == "OPTIONS":
                answer.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                body = _SDP.replace("\n", "\r\n")
                answer += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif method == "SETUP":
                transport = next(line for line in lines if line.startswith("Transport"))
                port = re.search(r"client_port=(\d+)", transport)[1]
                server = free_port()
                answer.append(f"{transport};server_port={server}-{server + 1}")
            client.sendall("\r\n".join([*answer, "", body]).encode())
            if method == "PLAY":
                _send(f"rtp://127.0.0.1:{port}", "rtp", count, pace=pace)
                return
