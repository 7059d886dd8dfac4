"""A container engine that misbehaves: the real one behind a proxy that changes what it says."""

import contextlib
import socket
import threading

ENGINE_SOCKET = "/var/run/docker.sock"


def misreport_exit_codes(answer):
    """What KFP's own handler makes of a container that is gone: every end is a good one."""
    for key in (b"ExitCode", b"StatusCode"):
        answer = answer.replace(b'"%s":7' % key, b'"%s":0' % key)
    return answer


@contextlib.contextmanager
def engine_proxy(change=lambda answer: answer, refuse="", granted=0):
    """Yields a value for DOCKER_HOST.

    Args:
        change: Applied to all that the engine answers; must not change its length.
        refuse: Words of the error by which the creation of a container is refused; empty for none.
        granted: Containers that are created before one is refused.
    """
    left = iter(range(granted))

    def refusal(request):
        creates = request.startswith(b"POST") and b"/containers/create" in request
        return _error(refuse) if refuse and creates and next(left, None) is None else b""

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, change, refusal), daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        # Wakes the thread that waits for a connection.
        server.shutdown(socket.SHUT_RDWR)


def _serve(server, change, refusal):
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            threading.Thread(
                target=_handle, args=(connection, change, refusal), daemon=True
            ).start()


def _handle(client, change, refusal):
    with client, socket.socket(socket.AF_UNIX) as engine:
        engine.connect(ENGINE_SOCKET)
        answers = threading.Thread(target=_pump, args=(engine, client, change), daemon=True)
        answers.start()
        with contextlib.suppress(OSError):
            while request := client.recv(65536):
                if answer := refusal(request):
                    client.sendall(answer)
                    return
                engine.sendall(request)
            engine.shutdown(socket.SHUT_WR)
        answers.join()


def _pump(source, target, change):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(change(data))
        target.shutdown(socket.SHUT_WR)


def _error(message):
    body = b'{"message": "%s"}' % message.encode()
    return (
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
