//! The program `fastcp-bench`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fastcp_bench::main()
}
