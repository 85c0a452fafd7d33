"""Callbacks over TLS: only who proves to be the receiver gets them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from callback_receiver import Delivery, Receiver, is_ours
from certificates import Authority
from daemon_factory import NewDaemon
from daemon_process import DaemonProcess, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the daemons here are told of."""
    return Authority(tmp_path_factory.mktemp("trusted"), "trusted")


@pytest.fixture
def good(trusted: Authority) -> Path:
    """A certificate for where the receiver is."""
    return trusted.certify("IP:127.0.0.1")


@pytest.fixture
def receiver(good: Path) -> Iterator[Receiver]:
    made = Receiver(certificate=good)
    yield made
    made.close()


@pytest.fixture
def daemon(new_daemon: NewDaemon, trusted: Authority) -> DaemonProcess:
    hosts = ("--callbackHosts", "127.0.0.1:*,localhost:*")
    return new_daemon(*hosts, environment={"SSL_CERT_FILE": str(trusted.path)})


def present(receiver: Receiver, certificate: Path) -> None:
    """Have a receiver, at the port it has, show another certificate."""
    receiver.close()
    receiver.certificate = certificate
    receiver.open()


def run(daemon: DaemonProcess, jid: str, url: str) -> None:
    reply = daemon.run("true", jid, callback=url).json()
    assert reply["status"] is True, reply


def wait_delivered(receiver: Receiver, daemon: DaemonProcess) -> Delivery:
    """Return the one delivery, once it is there, and signed."""
    wait_until(receiver.taken, "the end is told")
    (delivery,) = receiver.got
    assert is_ours(delivery, (daemon.db_path / "callback.secret").read_text().strip())
    return delivery


def test_a_receiver_with_a_good_certificate_gets_the_end_signed(
    daemon: DaemonProcess, receiver: Receiver
) -> None:
    run(daemon, "good", receiver.url("/hook?x=1"))
    delivery = wait_delivered(receiver, daemon)
    assert (delivery.path, delivery.data["jid"]) == ("/hook?x=1", "good")
    assert delivery.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_a_certificate_for_a_name_is_good_for_that_name(
    daemon: DaemonProcess, receiver: Receiver, trusted: Authority
) -> None:
    present(receiver, trusted.certify("DNS:localhost"))
    run(daemon, "named", receiver.url(host="localhost"))
    assert wait_delivered(receiver, daemon).headers["host"] == f"localhost:{receiver.port}"


@pytest.mark.parametrize("flaw", ["unknown authority", "other address", "other name"])
def test_what_does_not_prove_who_it_is_gets_nothing_and_is_tried_again(
    daemon: DaemonProcess,
    receiver: Receiver,
    trusted: Authority,
    good: Path,
    tmp_path: Path,
    flaw: str,
) -> None:
    if flaw == "unknown authority":
        present(receiver, Authority(tmp_path, "unknown").certify("IP:127.0.0.1"))
    elif flaw == "other address":
        present(receiver, trusted.certify("IP:127.0.0.2"))
    else:
        present(receiver, trusted.certify("DNS:other.example"))
    run(daemon, "told-later", receiver.url())
    daemon.wait_for_log(
        f"127.0.0.1:{receiver.port} does not take callbacks: its certificate is not good: "
    )
    assert receiver.got == []
    present(receiver, good)
    assert wait_delivered(receiver, daemon).data["jid"] == "told-later"


def test_a_receiver_without_tls_gets_nothing(daemon: DaemonProcess, receiver: Receiver) -> None:
    url = receiver.url()
    receiver.close()
    receiver.certificate = None
    receiver.open()
    run(daemon, "secret", url)
    daemon.wait_for_log("does not take callbacks")
    assert receiver.got == []
