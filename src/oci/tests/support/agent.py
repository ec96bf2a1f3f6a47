# A seccomp agent: takes container process states from the listening socket that is its standard input, prints each as a
# line, and answers the notifications of their descriptors. Arguments: numbers of system calls that fail with ENOMEDIUM;
# all others go on.
import fcntl, json, os, select, socket, struct, sys

RECV, SEND = 0xC0502100, 0xC0182101
CONTINUE = 1
ENOMEDIUM = 123
refused = [int(number) for number in sys.argv[1:]]

server = socket.socket(fileno=0)
poll = select.poll()
poll.register(server, select.POLLIN)


def take():
    connection, _ = server.accept()
    text, fds, _, _ = socket.recv_fds(connection, 65536, 4)
    while part := connection.recv(65536):
        text += part
    connection.close()
    state = json.loads(text)
    assert len(fds) == len(state["fds"]) == 1, (fds, state)
    poll.register(fds[0], select.POLLIN)
    print(json.dumps(state), flush=True)


def answer(listener):
    try:
        notification = fcntl.ioctl(listener, RECV, bytes(80))
        identity, _, _, number = struct.unpack_from("=QIIi", notification)
        if number in refused:
            fcntl.ioctl(listener, SEND, struct.pack("=QqiI", identity, 0, -ENOMEDIUM, 0))
        else:
            fcntl.ioctl(listener, SEND, struct.pack("=QqiI", identity, 0, 0, CONTINUE))
    except FileNotFoundError:
        pass  # The caller was killed in between.


while True:
    for fd, event in poll.poll():
        if fd == server.fileno():
            take()
        elif event & select.POLLIN:
            answer(fd)
        else:
            poll.unregister(fd)
            os.close(fd)
