//! `ingle`: see the library for how it works, `ingle --help` for how to use it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ingle::cli::main()
}
