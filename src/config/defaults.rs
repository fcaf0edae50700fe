//! Every default of the config file, in one place: the parser and the schema take them from here.

use std::time::Duration;

use super::file::{
    AccessSection, AdminSection, AffinitySection, BackendSection, CertificateSection, DrainSection, File,
    HealthCheckSection, HoldSection, LimitsSection, ListenerSection, ListenerTlsSection, OverloadSection,
    PerClientSection, PoolSection, ReloadSection, RetrySection, ShutdownSection, SignalsSection, TimeoutsSection,
    UpstreamTlsSection,
};
use super::headers::HeaderMap;
use super::lenient::Lenient;
use super::units::{PerTime, Share, Size, Span};
use super::{
    AccessLog, Balance, Cors, DrainSessions, MaxInFlight, Policy, ProbeKind, RetryUntil, ReturnHome, ServerKind,
};

impl Default for File {
    fn default() -> Self {
        Self {
            listeners: Lenient::Absent,
            admin: Lenient::Absent,
            affinity: good(AffinitySection::default()),
            pools: Lenient::Absent,
            access: good(AccessSection::default()),
            limits: good(LimitsSection::default()),
            reload: good(ReloadSection::default()),
            shutdown: good(ShutdownSection::default()),
            access_log: good(AccessLog::Off),
        }
    }
}

impl Default for ListenerSection {
    fn default() -> Self {
        Self {
            address: Lenient::Absent,
            tls: Lenient::Absent,
            allow: Lenient::Absent,
            cors: good(Cors::Pass),
            answer_probes: good(false),
        }
    }
}

impl Default for ListenerTlsSection {
    fn default() -> Self {
        let absent = || Lenient::Absent;
        Self { certificate: absent(), key: absent(), certificates: Lenient::Absent, client_ca: absent() }
    }
}

impl Default for CertificateSection {
    fn default() -> Self {
        Self { certificate: Lenient::Absent, key: Lenient::Absent }
    }
}

impl Default for AdminSection {
    fn default() -> Self {
        Self { address: Lenient::Absent, allow: Lenient::Absent, keys_file: Lenient::Absent }
    }
}

impl Default for AffinitySection {
    fn default() -> Self {
        Self {
            headers: good(vec![good("X-Session-Id".to_owned())]),
            max_length: good(256),
            hash_seed: good(String::new()),
            policy: good(Policy::ConsistentHash),
            gateways: good(1),
            max_sessions: good(200_000),
            return_home: good(ReturnHome::WhenIdle),
            idle_ttl: seconds(600),
            max_displaced: good(100_000),
        }
    }
}

impl Default for PoolSection {
    fn default() -> Self {
        Self {
            name: Lenient::Absent,
            balance: good(Balance::RoundRobin),
            overload: good(OverloadSection::default()),
            slow_start: seconds(0),
            signals: good(SignalsSection::default()),
            drain: good(DrainSection::default()),
            fail_open: good(true),
            hold: good(HoldSection::default()),
            health_check: good(HealthCheckSection::default()),
            timeouts: good(TimeoutsSection::default()),
            retry: good(RetrySection::default()),
            upstream_tls: good(UpstreamTlsSection::default()),
            backends: Lenient::Absent,
        }
    }
}

impl Default for OverloadSection {
    fn default() -> Self {
        Self {
            max_in_flight: good(MaxInFlight::Off),
            balance_factor: good(1.25),
            balance_floor: good(4),
            queue_wait: seconds(0),
            max_waiting: good(1000),
        }
    }
}

impl Default for SignalsSection {
    fn default() -> Self {
        Self { interval: seconds(0) }
    }
}

impl Default for DrainSection {
    fn default() -> Self {
        Self { sessions: good(DrainSessions::UntilIdle), deadline: seconds(600) }
    }
}

impl Default for HoldSection {
    fn default() -> Self {
        Self { timeout: seconds(0), max_requests: good(1000) }
    }
}

impl Default for HealthCheckSection {
    fn default() -> Self {
        Self {
            kind: good(ProbeKind::Http),
            path: good("/health".to_owned()),
            interval: seconds(2),
            fast_interval: good(Span(Duration::from_millis(500))),
            timeout: seconds(1),
            healthy_threshold: good(2),
            unhealthy_threshold: good(3),
            error_threshold: good(10),
        }
    }
}

impl Default for TimeoutsSection {
    fn default() -> Self {
        Self {
            connect: seconds(2),
            first_byte: seconds(0),
            first_token: seconds(0),
            idle: seconds(300),
            total: seconds(0),
            keep_alive: seconds(4),
        }
    }
}

impl Default for RetrySection {
    fn default() -> Self {
        Self {
            max_attempts: good(3),
            max_body: mebibytes(4),
            budget: good(Share(0.2)),
            until: good(RetryUntil::FirstToken),
            hold_head: seconds(10),
        }
    }
}

impl Default for UpstreamTlsSection {
    fn default() -> Self {
        let absent = || Lenient::Absent;
        Self { ca: absent(), server_name: absent(), verify: good(true), certificate: absent(), key: absent() }
    }
}

impl Default for BackendSection {
    fn default() -> Self {
        Self {
            name: Lenient::Absent,
            url: Lenient::Absent,
            weight: good(1),
            priority: good(0),
            server: good(ServerKind::LlamaServer),
            draining: good(false),
            api_key_file: Lenient::Absent,
            headers: good(HeaderMap::new()),
        }
    }
}

impl Default for AccessSection {
    fn default() -> Self {
        Self { keys_file: Lenient::Absent, trusted_proxies: good(Vec::new()) }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            max_body: mebibytes(64),
            max_header_bytes: good(Size(64 << 10)),
            http2_streams: good(100),
            memory_for_retry_bodies: mebibytes(256),
            max_connections: good(10_000),
            header_timeout: seconds(30),
            memory: mebibytes(2048),
            per_client: good(PerClientSection::default()),
        }
    }
}

impl Default for PerClientSection {
    fn default() -> Self {
        Self { max_connections: good(0), requests: good(PerTime(None)) }
    }
}

impl Default for ReloadSection {
    fn default() -> Self {
        Self { watch: good(false), max_moved: good(Share(1.0)) }
    }
}

impl Default for ShutdownSection {
    fn default() -> Self {
        Self { delay: seconds(0), drain_timeout: seconds(300) }
    }
}

fn good<T>(value: T) -> Lenient<T> {
    Lenient::Good(value)
}

fn seconds(count: u64) -> Lenient<Span> {
    good(Span(Duration::from_secs(count)))
}

fn mebibytes(count: u64) -> Lenient<Size> {
    good(Size(count << 20))
}
