//! `ingle sim`: one simulated backend, to try a config without a GPU.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use ingle_sim::{BeforeToken, Ending, Fault, ServerKind, SimConfig, SimServer};

use super::run::{Signals, eprintln, raise_file_limit, runtime};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Where it listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The server that is imitated: llama_server or vllm.
    #[arg(long, value_name = "SERVER")]
    server: ServerKind,
    /// Its name: in the header X-Sim-Backend and in system_fingerprint of every answer.
    #[arg(long, default_value = "sim")]
    name: String,
    /// Requests that are processed at once; the others queue.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = slots)]
    slots: usize,
    /// Size of the prefix cache, in tokens; 0 is no cache.
    #[arg(long, default_value_t = 131_072, value_name = "TOKENS")]
    cache: usize,
    /// Prompt tokens computed per second.
    #[arg(long, default_value_t = 8000.0, value_name = "TOKENS", value_parser = rate)]
    prefill_rate: f64,
    /// Tokens generated per second by each request.
    #[arg(long, default_value_t = 40.0, value_name = "TOKENS", value_parser = rate)]
    decode_rate: f64,
    /// Factor on the time that prefill and decode take: 1 is the real pace, 0 waits for nothing.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = factor)]
    time_scale: f64,
    /// How long it loads its model after the start, such as 10s.
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = humantime::parse_duration)]
    loading: Duration,
    /// vLLM: report how many prompt tokens were cached, as with --enable-prompt-tokens-details.
    #[arg(long)]
    prompt_tokens_details: bool,
    /// Send the head of a stream together with its first token, as older servers did. Otherwise llama-server sends it when
    /// the request gets its slot, vLLM at once.
    #[arg(long)]
    late_head: bool,
    /// Time between two comments (`:`) while a stream has no token; 0s is off. Default: 30s for llama_server, 0s for vllm.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ping_interval: Option<Duration>,
    /// Fail answers before their first token: `close` or `reset` the connection, `stall`, `end` the stream, or send an error
    /// event with a code such as 503.
    #[arg(long, value_name = "HOW")]
    fault: Option<Ending>,
    /// With --fault: from the head to the failure.
    #[arg(long, default_value = "0s", value_name = "TIME", requires = "fault", value_parser = humantime::parse_duration)]
    fault_after: Duration,
    /// With --fault: first send the events that announce output, such as the role of a chat or message_start.
    #[arg(long, requires = "fault")]
    fault_skeleton: bool,
    /// With --fault: how many answers fail; the others are right. Default: all.
    #[arg(long, value_name = "N", requires = "fault")]
    fault_times: Option<usize>,
}

/// Serves until SIGINT or SIGTERM.
pub(super) fn run(args: Args) -> ExitCode {
    let served = runtime().and_then(|runtime| {
        let served = runtime.block_on(serve(args));
        runtime.shutdown_background();
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> io::Result<()> {
    raise_file_limit();
    let mut signals = Signals::new()?;
    let address = args.listen;
    let (fault, times) = (args.fault(), args.fault_times);
    let server = SimServer::bind(args.config(), address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("can't listen on {address}: {error}")))?;
    match (fault, times) {
        (Some(fault), Some(times)) => server.inject(fault.times(times)),
        (Some(fault), None) => server.inject(fault),
        (None, _) => {}
    }
    let (kind, name) = (server.config().server.as_str(), server.name());
    writeln!(io::stdout(), "simulated {kind} {name} listens on {}", server.url())?;
    signals.next().await;
    Ok(())
}

impl Args {
    fn fault(&self) -> Option<Fault> {
        let ending = self.fault?;
        Some(Fault::BeforeToken(BeforeToken { after: self.fault_after, skeleton: self.fault_skeleton, ending }))
    }

    fn config(self) -> SimConfig {
        let server = match self.server {
            ServerKind::LlamaServer => SimConfig::llama_server(self.name),
            ServerKind::Vllm => SimConfig::vllm(self.name),
        };
        let ping_interval = match self.ping_interval {
            Some(interval) => Some(interval).filter(|interval| !interval.is_zero()),
            None => server.ping_interval,
        };
        SimConfig {
            slots: self.slots,
            cache_tokens: self.cache,
            prefill_rate: self.prefill_rate,
            decode_rate: self.decode_rate,
            time_scale: self.time_scale,
            loading: self.loading,
            prompt_tokens_details: self.prompt_tokens_details,
            early_head: !self.late_head,
            ping_interval,
            ..server
        }
    }
}

fn slots(text: &str) -> Result<usize, String> {
    // A slot is a permit of a semaphore, which has a bound far above this one.
    text.parse().ok().filter(|slots| (1..=1_000_000).contains(slots)).ok_or_else(|| "not in 1..=1000000".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    factor(text).ok().filter(|rate| *rate > 0.0).ok_or_else(|| "not a number above 0".to_owned())
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor >= 0.0);
    factor.ok_or_else(|| "not a number, 0 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_would_stop_the_clock_are_refused() {
        assert_eq!(rate("8000"), Ok(8000.0));
        assert_eq!(factor("0"), Ok(0.0));
        for wrong in ["0", "-1", "inf", "NaN", "fast"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        for wrong in ["-0.1", "inf", "NaN", ""] {
            assert!(factor(wrong).is_err(), "{wrong}");
        }
        assert!(slots("0").is_err() && slots("1").is_ok());
    }
}
