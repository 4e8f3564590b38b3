//! See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cache_chaos::main()
}
