//! `ingle`: see the library for how it works, `ingle --help` for how to use it.

use std::process::ExitCode;

/// A request costs some fifty allocations, most of them Pingora's; with this allocator they take a tenth less CPU time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ingle::cli::main()
}
