"""A test as the documentation of testcontainers shows it, with an image that the host has already.

TESTCONTAINERS_RYUK_DISABLED=true is set, because its reaper is an image that would have to be pulled.
"""

import socket
import time

from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import wait_for_logs
from testcontainers.postgres import PostgresContainer

script = "echo hello >/word; echo listening; exec nc -ll -p 8000 -e cat /word"
with DockerContainer("busybox").with_command(["sh", "-c", script]).with_exposed_ports(8000) as container:
    wait_for_logs(container, "listening", timeout=20)
    address, port = container.get_container_host_ip(), int(container.get_exposed_port(8000))
    deadline = time.monotonic() + 20
    said = ""
    while said != "hello\n":
        assert time.monotonic() < deadline, f"nothing answers at {address}:{port}"
        try:
            with socket.create_connection((address, port), timeout=5) as connection:
                said = connection.makefile().readline()
        except OSError:
            pass
        if said != "hello\n":
            time.sleep(0.1)
    code, output = container.exec(["cat", "/word"])
    assert (code, output) == (0, b"hello\n"), (code, output)
    print(address)

# A database changes its user, and is asked by psql inside whether it is ready.
with PostgresContainer("postgres", driver=None) as postgres:
    code, output = postgres.exec(["psql", "-U", postgres.username, "-d", postgres.dbname, "-Atc", "SELECT 6 * 7"])
    assert (code, output) == (0, b"42\n"), (code, output)
    owner = postgres.get_wrapped_container().exec_run(["id", "-u"], user="postgres")
    assert owner == (0, b"999\n"), owner
    with socket.create_connection((postgres.get_container_host_ip(), int(postgres.get_exposed_port(5432))), timeout=20) as connection:
        # A request for TLS (PostgreSQL's protocol, "SSLRequest"), and the answer that there is none.
        connection.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
        assert connection.recv(1) == b"N"
    print("postgres")
