//! The shell, tested from outside: a real gateway, in this process or as the real binary, between a client that
//! writes its bytes by hand and backends that are simulated or scripted.
//!
//! | file | what holds |
//! |---|---|
//! | `retry_stages` | the retry table, stage by stage: what is tried again, where, and what never is |
//! | `retry_answers` | 503, 502 and 429: whose answer the client gets; attempts and budget |
//! | `retry_bodies` | bodies are byte-identical on the second backend, whatever their size and framing |
//! | `retry_random` | random backends, bodies and sessions against the retry table |
//! | `stale` | reused connections that had died cost the client nothing and the backend no blame |
//! | `first_token` | streams before their first output: what their clients see, and where the request goes when they fail |
//! | `first_token_fails` | when no backend produces output in time, or at all: statuses, time limits, health |
//! | `hold` | requests wait while no backend can serve them and one is loading |
//! | `timeouts` | first byte, idle, total; requests on a frozen backend are rescued |
//! | `health` | warming, unhealthy, probation; what is and what is not held against a backend; readiness |
//! | `errors` | backends that answer with errors: taken out, tried, brought back; what their answers teach |
//! | `broken` | responses that break off: counted by cause, and held against a backend that does it again and again |
//! | `stalled` | backends that leave requests without output beside others that do not; saturation, which is not that |
//! | `affinity` | every turn at home, shares by weight, replicas agree |
//! | `overload` | bounded load: who waits for room, who spills, who is refused |
//! | `fair` | holders of API keys take turns where their requests wait |
//! | `failover` | a killed backend: who moves, who stays, who returns |
//! | `sessions` | the session header: several names, empty, repeated, over-long, not ASCII |
//! | `streams` | bytes and timing of responses pass as they are |
//! | `departures` | a client that leaves ends the backend's work |
//! | `protocols` | HEAD, 1xx, HTTP/1.0, `Expect`, upgrades, h2c, keep-alive |
//! | `slow_clients` | who stops reading or sending is cut, who is only slow is not; no backend is blamed for either |
//! | `limits` | bodies, heads, connections, slow clients, memory |
//! | `per_client` | what one client may use: connections, how often it asks |
//! | `pressure` | the gateway's own memory or descriptors run out: what is refused, what goes on |
//! | `access` | who may come: API keys, addresses, proxies that are believed; keys of backends and admins |
//! | `kinds` | what is not inference: it takes no slot, moves no session, counts as no prompt; calls that change one server's state |
//! | `cors` | pages of other origins: preflights, errors that they can read |
//! | `headers` | what is added, kept and stripped on the way to a backend |
//! | `signals` | what backends say of themselves: asked where wanted, never in the way, never held against them |
//! | `admin` | the admin listener's endpoints |
//! | `page` | the status page in a browser, and the figures of its charts |
//! | `metrics` | names, labels and figures of `/metrics` |
//! | `usage` | prompt tokens, exactly as the backends counted them |
//! | `hints` | signs that affinity does less than it could, and what it saved |
//! | `tls` | certificates by name, client certificates, ALPN; certificates that change under load |
//! | `upstream_tls` | backends behind https: who is believed and who is not |
//! | `http2` | what one HTTP/2 connection may do |
//! | `reload` | a new config: what changes, what stays, what is refused |
//! | `lifecycle` | the process: signals, drain, exit codes |
//! | `upgrade` | another process takes over; sockets from systemd, and what it is told |
//! | `upheaval` | reloads and upgrades under load: nothing is lost |
//! | `cli` | the other subcommands |
//! | `log` | the access log and the log of the process |
//! | `scale` | thousands of streams at once |
//!
//! The tools: `harness` (a gateway), `client` (HTTP/1.1 by hand), `h2c`, `frames` (HTTP/2 by hand), `scripted` (a
//! backend that does as told), `certs` (authorities, certificates, TLS on both sides), `process` (the binary). Tests wait for conditions, never for time to pass; how fast
//! things are is for benchmarks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod certs;
mod client;
mod frames;
mod h2c;
mod harness;
mod process;
#[path = "../simulation/rng.rs"]
mod rng;
mod scripted;

mod access;
mod admin;
mod affinity;
mod broken;
mod cli;
mod cors;
mod departures;
mod errors;
mod failover;
mod fair;
mod first_token;
mod first_token_fails;
mod fronts;
mod headers;
mod health;
mod hints;
mod hold;
mod http2;
mod kinds;
mod lifecycle;
mod limits;
mod log;
mod metrics;
mod overload;
mod page;
mod per_client;
mod pressure;
mod protocols;
mod reload;
mod retry_answers;
mod retry_bodies;
mod retry_random;
mod retry_stages;
mod scale;
mod sessions;
mod signals;
mod sinks;
mod slow_clients;
mod stale;
mod stalled;
mod streams;
mod timeouts;
mod tls;
mod upgrade;
mod upheaval;
mod upstream_tls;
mod usage;
mod words;
