//! Puts `dind-init` into `dind`: the file that the variable `DIND_INIT` names, as `quickstart` has built it for this version.
//! Without the variable the command is complete but for `dind build`, which then says what is missing.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=DIND_INIT");
    println!(
        "cargo::rustc-env=DIND_REVISION={}",
        env::var("DIND_REVISION").unwrap_or_else(|_| "unknown".into())
    );
    println!("cargo::rerun-if-env-changed=DIND_REVISION");
    let embedded = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("dind-init");
    match env::var_os("DIND_INIT") {
        Some(file) => {
            println!("cargo::rerun-if-changed={}", file.display());
            fs::copy(&file, &embedded).unwrap_or_else(|e| panic!("DIND_INIT={}: {e}", file.display()));
        }
        None => fs::write(&embedded, []).expect("OUT_DIR can be written"),
    }
}
