//! `ingle demo`: why ingle exists, in less than a minute, with nothing else needed.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | what happens when: the traffic, the GPUs, the kill |
//! | `side.rs` | three simulated GPUs behind a gateway, with or without affinity |
//! | `figures.rs` | one moment of both sides, as plain values |
//! | `table.rs`, `text.rs`, `words.rs` | those values as text |
//! | `screen.rs` | a terminal, or a pipe |

mod figures;
mod plan;
mod screen;
mod side;
mod table;
mod text;
mod words;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use self::figures::{GatewayFigures, Moment};
use self::plan::Plan;
use self::screen::Screen;
use self::side::{Kind, Side};
use super::run::{Signals, eprintln, raise_file_limit, runtime};

#[derive(clap::Args)]
pub(super) struct Args {
    /// How long the traffic lasts; less than 45 s runs everything faster.
    #[arg(long, default_value_t = 45, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: u64,
    /// Chat sessions alive at the same time, on each side.
    #[arg(long, default_value_t = 36, value_name = "N", value_parser = clap::value_parser!(u16).range(3..=1000))]
    sessions: u16,
    /// Where the status page is; if that port is taken, on a free one.
    #[arg(long, default_value = "127.0.0.1:9180", value_name = "ADDRESS")]
    admin: SocketAddr,
}

/// Runs the demo to its end, or until SIGINT or SIGTERM. `plain`: no redrawing, for there will be logs in between.
pub(super) fn run(args: &Args, plain: bool) -> ExitCode {
    let shown = runtime().and_then(|runtime| {
        let shown = runtime.block_on(Box::pin(show(args, plain)));
        runtime.shutdown_background();
        shown
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln(&format!("the demo can't go on: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn show(args: &Args, plain: bool) -> io::Result<()> {
    raise_file_limit();
    let mut signals = Signals::new()?;
    let plan = Plan::new(args.seconds, usize::from(args.sessions));
    let mut screen = Screen::new(&plan, plain);
    screen.say(&text::introduction(&plan))?;
    let (affinity, note) = Side::start(Kind::Affinity { admin: args.admin }, &plan).await?;
    if let Some(note) = note {
        screen.say(&note)?;
    }
    if let Some(address) = affinity.admin {
        screen.say(&format!("status page: http://{address}/"))?;
        screen.say(text::MORE_TIME)?;
    }
    let (round_robin, _) = Side::start(Kind::RoundRobin, &plan).await?;
    let mut demo = Demo { plan, affinity, round_robin, began: Instant::now(), fault: Fault::ToCome };
    screen.begin()?;
    let interrupted = demo.play(&mut screen, &mut signals).await?;
    let killed = !matches!(demo.fault, Fault::ToCome);
    screen.say(&text::summary(&demo.moment(), &demo.plan, killed, interrupted))
}

/// Both sides, and how far they are.
struct Demo {
    plan: Plan,
    affinity: Side,
    round_robin: Side,
    began: Instant,
    fault: Fault,
}

/// How far the story of the killed GPU is.
enum Fault {
    ToCome,
    Down,
    Over,
}

impl Demo {
    /// Runs the traffic to its end. Whether a signal ended it.
    async fn play(&mut self, screen: &mut Screen, signals: &mut Signals) -> io::Result<bool> {
        self.began = Instant::now();
        self.affinity.load(&self.plan)?;
        self.round_robin.load(&self.plan)?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.began.elapsed() < self.plan.length {
            tokio::select! {
                () = signals.next() => return Ok(true),
                error = self.affinity.broken() => return Err(error),
                error = self.round_robin.broken() => return Err(error),
                _ = tick.tick() => {}
            }
            let event = tokio::select! {
                () = signals.next() => return Ok(true),
                event = self.go_on() => event,
            };
            if let Some(event) = event {
                screen.say(&event)?;
            }
            screen.show(&self.moment(), &self.plan)?;
        }
        Ok(false)
    }

    /// Kills or revives the GPU when its time has come, on both sides at once.
    async fn go_on(&mut self) -> Option<String> {
        let elapsed = self.began.elapsed();
        let at = elapsed.as_secs();
        match self.fault {
            Fault::ToCome if elapsed >= self.plan.kill_at => {
                self.fault = Fault::Down;
                let patience = self.plan.kill_patience();
                tokio::join!(self.affinity.kill(patience), self.round_robin.kill(patience));
                let at = self.began.elapsed().as_secs();
                Some(text::killed(at, self.affinity.figures().stranded, self.round_robin.figures().stranded))
            }
            Fault::Down if elapsed >= self.plan.revive_at => {
                self.fault = Fault::Over;
                match tokio::try_join!(self.affinity.revive(), self.round_robin.revive()) {
                    Ok(_) => Some(text::revived(at)),
                    Err(error) => Some(text::lost(at, &error)),
                }
            }
            _ => None,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            elapsed: self.began.elapsed(),
            affinity: self.affinity.figures(),
            round_robin: self.round_robin.figures(),
            gateway: GatewayFigures::from(&*self.affinity.gateway),
        }
    }
}

/// How often the table is redrawn, and the grain of what happens on the way.
const TICK: Duration = Duration::from_millis(250);
