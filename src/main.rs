//! The `chancery` program: parses arguments and ends with the exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// What a compile makes are many small objects that live long beside many that do not; this is where it spends its time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    chancery::cli::run(std::env::args_os())
}
