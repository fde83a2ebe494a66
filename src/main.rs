//! The `chancery` program: parses arguments and ends with the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    chancery::cli::run(std::env::args_os())
}
