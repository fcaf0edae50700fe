//! Where the demo writes: a terminal, on which the table is redrawn, or a pipe, which gets a line now and then.

use std::io::{self, IsTerminal, Stdout, Write};
use std::time::Duration;

use rustix::termios::tcgetwinsize;

use super::figures::Moment;
use super::plan::Plan;
use super::table;

/// Standard output.
pub(super) struct Screen {
    out: Stdout,
    /// Lines of the table that stand at the end of the terminal; `None` on a pipe.
    drawn: Option<usize>,
    /// When the pipe gets its next line, counted as [`Moment::elapsed`] is.
    next_line: Duration,
    /// From one line of a pipe to the next.
    between_lines: Duration,
}

impl Screen {
    /// `plain`: as on a pipe, whatever it is.
    pub(super) fn new(plan: &Plan, plain: bool) -> Screen {
        let between_lines = (plan.length / 9).clamp(Duration::from_secs(1), Duration::from_secs(60));
        let redraws = !plain && io::stdout().is_terminal() && roomy();
        Screen { out: io::stdout(), drawn: redraws.then_some(0), next_line: between_lines, between_lines }
    }

    /// A paragraph that stays.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        self.erase()?;
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Says that the table begins.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if self.drawn.is_some() { Ok(()) } else { self.say(&format!("\n{}", table::heading())) }
    }

    /// The table of this moment, if it is time for it.
    pub(super) fn show(&mut self, moment: &Moment, plan: &Plan) -> io::Result<()> {
        if self.drawn.is_some() {
            let block = table::block(moment, plan);
            self.say(&block)?;
            self.drawn = Some(block.lines().count());
        } else if moment.elapsed >= self.next_line {
            self.next_line += self.between_lines;
            self.say(&table::line(moment))?;
        }
        Ok(())
    }

    /// Takes the table off a terminal.
    fn erase(&mut self) -> io::Result<()> {
        if let Some(lines @ 1..) = self.drawn {
            // To the first column, up by so many lines, and all of it away.
            write!(self.out, "\r\x1b[{lines}A\x1b[J")?;
            self.drawn = Some(0);
        }
        Ok(())
    }
}

/// Whether the terminal is large enough: a table that wraps or scrolls can't be redrawn.
fn roomy() -> bool {
    tcgetwinsize(io::stdout()).is_ok_and(|size| usize::from(size.ws_col) > table::WIDTH && size.ws_row >= 16)
}
