"""Drives a host with the library `docker`, as its documentation shows. The archive of busybox comes on standard input."""

import io
import os
import socket
import sys
import threading
import time

import docker


def answer(address, port):
    """What a server says; it may need a moment until it listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection((address, port), timeout=5) as connection:
                said = connection.makefile().readline().strip()
                if said:
                    return said
        except OSError:
            pass
        assert time.monotonic() < deadline, f"nothing answers at {address}:{port}"
        time.sleep(0.1)


client = docker.from_env(timeout=30)
assert client.ping()
assert client.version()["ApiVersion"]
address = os.environ["DOCKER_HOST"].removeprefix("tcp://").rsplit(":", 1)[0]

# Events are read beside everything else, until all that is to come has come.
seen = []
events = client.events(decode=True)


def events_of(stream):
    for event in stream:
        yield (event["Type"], event["Action"])


threading.Thread(target=lambda: seen.extend(events_of(events)), daemon=True).start()


def wait_for_event(kind, action):
    deadline = time.monotonic() + 20
    while (kind, action) not in seen:
        assert time.monotonic() < deadline, f"no event {kind} {action} among {seen}"
        time.sleep(0.1)


# Images: import, build, save, load.
client.api.import_image_from_data(sys.stdin.buffer.read(), repository="busybox", changes=["ENV PATH=/bin"])
image, log = client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo built >/built\nCMD cat /built\n"), tag="made", rm=True)
assert any("Successfully built" in line.get("stream", "") for line in log), log
archive = b"".join(image.save(named=True))
client.images.remove("made")
assert not client.images.list("made")
loaded = client.images.load(archive)
assert [image.tags for image in loaded] == [["made:latest"]], loaded
print("images")

# Containers: their logs, whole and as they come; what fails; a command in one that runs.
assert client.containers.run("made", remove=True) == b"built\n"
counting = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done"], detach=True)
assert b"".join(counting.logs(stream=True, follow=True)) == b"1\n2\n3\n"
assert counting.wait()["StatusCode"] == 0
counting.remove()
try:
    client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    raise AssertionError("an exit code is lost")
except docker.errors.ContainerError as error:
    assert (error.exit_status, error.stderr) == (3, b"bad\n"), error
volume = client.volumes.create("kept")
server = client.containers.run(
    "busybox",
    ["nc", "-ll", "-p", "8000", "-e", "cat", "/volume/word"],
    detach=True,
    ports={"8000/tcp": None},
    volumes={"kept": {"bind": "/volume", "mode": "rw"}},
)
code, output = server.exec_run(["sh", "-c", "echo hello >/volume/word; echo done; exit 7"])
assert (code, output) == (7, b"done\n"), (code, output)
print("containers")

# A port that the host publishes is reached at the host's address.
server.reload()
port = int(server.ports["8000/tcp"][0]["HostPort"])
assert answer(address, port) == "hello"
server.remove(force=True)
read = client.containers.run("busybox", ["cat", "/data/word"], remove=True, volumes={"kept": {"bind": "/data", "mode": "ro"}})
assert read == b"hello\n", read
volume.remove()
print("ports and volumes")

for kind, action in [("image", "import"), ("container", "die"), ("volume", "destroy")]:
    wait_for_event(kind, action)
events.close()
print("events")
