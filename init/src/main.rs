//! The binary: see the library, which is apart only so that its parsers can be fuzzed (`init/fuzz`).

use std::process::ExitCode;

fn main() -> ExitCode {
    dind_init::main()
}
