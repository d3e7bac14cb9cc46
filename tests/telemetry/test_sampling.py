"""Inbound trace context: parent or link, and whose sampled flag counts."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased

from pbmon import runtime
from pbmon.telemetry.sampling import PeerSampler, from_environment
from pbmon.testing import capture
from tests.telemetry.drive import PARENT, TRACE, http, points, request, traceparent, websocket

OUTSIDE = ("203.0.113.9", 4000)
INSIDE = ("10.1.2.3", 4000)


@pytest.fixture(autouse=True)
def no_sampler_variable(monkeypatch):
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)


def links(seen):
    (span,) = seen._exporter.get_finished_spans()
    return [(f"{l.context.trace_id:032x}", f"{l.context.span_id:016x}") for l in span.links]


# --- parent or link ---


@pytest.mark.parametrize("client", [INSIDE, OUTSIDE, None])
def test_an_inbound_context_is_the_parent(client):
    with capture() as seen:
        request(seen, http(headers=[traceparent()], client=client))
        (span,) = seen.spans
        assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
        assert links(seen) == []


@pytest.mark.parametrize(
    ("public", "path", "linked"),
    [
        (True, "/", True),
        (False, "/", False),
        (["/api", "/web"], "/web/x", True),
        (["/api"], "/internal", False),
        (lambda scope: scope["path"] == "/open", "/open", True),
        (lambda scope: scope["path"] == "/open", "/closed", False),
    ],
)
def test_public_endpoint_makes_it_a_link(public, path, linked):
    with capture(public_endpoint=public) as seen:
        request(seen, http(path, headers=[traceparent()]))
        (span,) = seen.spans
        if linked:
            assert span.parent_id is None
            assert span.trace_id != TRACE
            assert links(seen) == [(TRACE, PARENT)]
        else:
            assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
            assert links(seen) == []


def test_an_unsampled_context_at_a_public_endpoint_does_not_switch_tracing_off():
    with capture(public_endpoint=True) as seen:
        request(seen, http(headers=[traceparent("00")]))
        assert len(seen.spans) == 1


def test_a_websocket_has_the_inbound_parent_as_well():
    with capture() as seen:
        record = runtime.active.requests.websocket(websocket(headers=[traceparent()]))
        record.closed()
        (span,) = seen.spans
        assert (span.trace_id, span.parent_id) == (TRACE, PARENT)


@pytest.mark.parametrize(
    "value",
    [b"", b"00", b"00-0-0-01", f"00-{TRACE}-{'0' * 16}-01".encode(),
     f"00-{'0' * 32}-{PARENT}-01".encode(), f"ff-{TRACE}-{PARENT}-01".encode(),
     f"00-{TRACE}-{PARENT}-01-extra".encode()],
)  # fmt: skip
def test_a_malformed_context_starts_a_new_trace(value):
    with capture() as seen:
        request(seen, http(headers=[(b"traceparent", value)]))
        (span,) = seen.spans
        assert span.parent_id is None


def test_baggage_is_in_the_context_and_not_on_the_span():
    from opentelemetry import baggage

    with capture() as seen:
        headers = [traceparent(), (b"baggage", b"user=ada"), (b"baggage", b"plan=pro")]
        record = runtime.active.requests.request(http(headers=headers))
        assert baggage.get_all() == {"user": "ada", "plan": "pro"}
        record.closed()
        assert baggage.get_all() == {}
        assert not any("ada" in str(value) for value in seen.spans[0].attributes.values())


# --- whose flag counts ---


@pytest.mark.parametrize(
    ("client", "flag", "sampled"),
    [
        (INSIDE, "01", True),
        (INSIDE, "00", False),
        (("127.0.0.1", 1), "00", False),
        (("::1", 1), "00", False),
        (("::ffff:10.0.0.1", 1), "00", False),
        (("testclient", 50000), "00", False),
        (None, "00", False),
        (OUTSIDE, "00", True),
        (OUTSIDE, "01", True),
        (("2001:db8::1", 1), "00", True),
    ],
)
def test_the_flag_counts_from_trusted_peers_only(client, flag, sampled):
    with capture() as seen:
        request(seen, http(headers=[traceparent(flag)], client=client), first_s=0.25)
        assert len(seen.spans) == int(sampled)
        # metrics do not depend on sampling
        assert seen.metric("http.server.request.duration") == (1, 0.25)


def test_an_unsampled_request_leaves_no_exemplar():
    with capture() as seen:
        request(seen, http(headers=[traceparent("00")], client=INSIDE), first_s=0.25)
        (point,) = points(seen, "http.server.request.duration")
        assert point.exemplars == []


@pytest.mark.parametrize(
    ("peer", "client", "sampled"), [(INSIDE, OUTSIDE, False), (OUTSIDE, INSIDE, True)]
)
def test_the_tcp_peer_counts_and_not_what_a_proxy_header_says(peer, client, sampled):
    with capture() as seen:
        scope = http(headers=[traceparent("00")], client=client, **{runtime.PEER: peer})
        request(seen, scope)
        assert len(seen.spans) == int(sampled)


def test_trusted_peers_can_be_set():
    with capture(trusted_peers=["203.0.113.0/24"]) as seen:
        request(seen, http(headers=[traceparent("00")], client=OUTSIDE))
        request(seen, http(headers=[traceparent("00")], client=INSIDE))
        assert len(seen.spans) == 1


def test_children_of_an_untrusted_request_follow_its_span():
    """The mark stays in the context; a local child must not be decided anew."""
    asked = []

    class Never(type(ALWAYS_OFF)):
        def should_sample(self, *args, **kwargs):
            asked.append(args[2])
            return super().should_sample(*args, **kwargs)

    provider = TracerProvider(
        sampler=PeerSampler(Never(ALWAYS_OFF._decision)), shutdown_on_exit=False
    )
    with capture():
        runtime.active.requests.tracer = provider.get_tracer("t")
        record = runtime.active.requests.request(http(headers=[traceparent()], client=OUTSIDE))
        assert not trace.get_current_span().get_span_context().trace_flags.sampled
        assert trace.get_current_span().get_span_context().trace_id == int(TRACE, 16)
        child = provider.get_tracer("t").start_span("child")
        assert not child.is_recording()
        record.closed()
    assert asked == ["GET"]


def test_a_local_ratio_decides_for_untrusted_peers():
    sampler = PeerSampler(TraceIdRatioBased(0.25))
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    with capture():
        runtime.active.requests.tracer = provider.get_tracer("t")

        def sampled(trace_id, client):
            header = (b"traceparent", f"00-{trace_id:032x}-{PARENT}-01".encode())
            record = runtime.active.requests.request(http(headers=[header], client=client))
            flags = trace.get_current_span().get_span_context().trace_flags
            record.closed()
            return flags.sampled

        low, high = 1, (1 << 64) - 1  # the ratio looks at the lower 64 bits
        assert [sampled(i, OUTSIDE) for i in (low, high)] == [True, False]
        assert [sampled(i, INSIDE) for i in (low, high)] == [True, True]


# --- OTEL_TRACES_SAMPLER is obeyed exactly ---


@pytest.mark.parametrize(
    ("name", "client", "flag", "sampled"),
    [
        ("always_on", INSIDE, "00", True),
        ("always_off", OUTSIDE, "01", False),
        ("parentbased_always_on", OUTSIDE, "00", False),
        ("parentbased_always_on", OUTSIDE, "01", True),
        ("parentbased_always_off", OUTSIDE, "01", True),
    ],
)
def test_an_explicit_sampler_is_obeyed(monkeypatch, name, client, flag, sampled):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    assert from_environment() is None
    with capture() as seen:
        request(seen, http(headers=[traceparent(flag)], client=client))
        assert len(seen.spans) == int(sampled)


def test_without_it_the_peer_sampler_decides():
    assert isinstance(from_environment(), PeerSampler)
    assert from_environment().get_description() == "PbmonPeerSampler{root=AlwaysOnSampler}"
