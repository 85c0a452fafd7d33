"""Schedules a service on a Docker Swarm, tells its state, or removes it. Standard library only.

The options are those of WIRE 14.3, the service is that of WIRE 14.2, terminal included.
"""

import argparse
import http.client
import json
import shlex
import socket
import sys
import urllib.parse

SOCKET = "/var/run/docker.sock"
API = "/v1.32"


class Engine(http.client.HTTPConnection):
    """HTTP over the engine's unix socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)

    def ask(self, method, path, body=None):
        """Return the engine's answer; end the program if it is an error."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self.request(method, API + path, json.dumps(body) if body is not None else None, headers)
        answer = self.getresponse()
        text = answer.read().decode()
        if answer.status >= 400:
            sys.exit(f"{method} {path}: {answer.status} {text.strip()}")
        return json.loads(text) if text else None


def schedule(engine, name, options):
    """Create the service."""
    container = {"Image": options.image, "Command": shlex.split(options.command), "TTY": True}
    if options.mount:
        container["Mounts"] = [{"Type": "bind", "Source": options.mount, "Target": "/share"}]
    policy = {"Condition": options.restart_policy, "Delay": 0, "MaxAttempts": 0, "Window": 0}
    template = {"ContainerSpec": container, "RestartPolicy": policy}
    print(engine.ask("POST", "/services/create", {"Name": name, "TaskTemplate": template}))


def show_state(engine, name):
    """Print the first task that the engine lists."""
    engine.ask("GET", f"/services/{name}")
    filters = urllib.parse.quote(json.dumps({"service": [name]}))
    print(json.dumps(engine.ask("GET", f"/tasks?filters={filters}")[0]))


def main():
    """Read the arguments and do what they ask for."""
    parser = argparse.ArgumentParser()
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("-s", "--schedule", metavar="NAME")
    action.add_argument("-r", "--remove", metavar="NAME")
    action.add_argument("--state", metavar="NAME")
    parser.add_argument("-i", "--image")
    parser.add_argument("-c", "--command")
    parser.add_argument("-m", "--mount")
    parser.add_argument("-p", "--restart_policy", default="on-failure")
    parser.add_argument("--conffile")
    options = parser.parse_args()
    engine = Engine("localhost")
    if options.schedule:
        schedule(engine, options.schedule, options)
    elif options.state:
        show_state(engine, options.state)
    else:
        engine.ask("DELETE", f"/services/{options.remove}")


if __name__ == "__main__":
    main()
