//! The programs under test, built from this workspace with the profile the caller was built with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

/// The programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// `banyan-agent`.
    pub agent: PathBuf,
    /// `banyan-aggregator`.
    pub aggregator: PathBuf,
}

/// The programs, built on the first call.
///
/// The build needs no network: everything they are made of was there to build the caller. For a test it names
/// a test too, and for `cargo run` only what that names: so that dependencies get the features they have for
/// the caller (a test adds those of development), and are not built again.
///
/// # Errors
/// What cargo says, or that a program is not where it should be.
pub fn binaries() -> Result<Binaries> {
    static BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

/// The folder of the caller's profile: `target/debug`, also for a test in `target/debug/deps`.
pub(crate) fn profile_dir() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program's own path")?;
    let folder = program.parent().context("a program lies in a folder")?;
    let folder = if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.parent().context("deps lies in the profile's folder")?
    } else {
        folder
    };
    Ok(folder.to_owned())
}

fn build() -> Result<Binaries> {
    let folder = profile_dir()?;
    let called_by_a_test = std::env::current_exe()?.parent() != Some(&folder);
    let like_the_caller: &[&str] = if called_by_a_test {
        &["--workspace", "--test", "fuzz"]
    } else {
        &["-p", "banyan-tests", "-p", "banyan-agent", "-p", "banyan-aggregator"]
    };
    let name = folder.file_name().and_then(|name| name.to_str()).context("the profile's folder")?;
    let profile = if name == "debug" { "dev" } else { name };
    let target = folder.parent().context("the profile's folder lies in the target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut command = Command::new(cargo);
    // What cargo tells its children of the caller's package: ring's build script would see that it has changed,
    // and ring and everything on it would be built again, here and then for the caller.
    for (name, _) in std::env::vars_os() {
        let told = name.to_str().unwrap_or_default();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let output = command
        .args(["build", "--quiet", "--offline", "--profile", profile])
        .args(like_the_caller)
        .args(["--bin", "banyan-agent", "--bin", "banyan-aggregator"])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .output()
        .context("running cargo: is it installed, or CARGO set to something else?")?;
    if !output.status.success() {
        bail!("cargo build failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let program = |name: &str| {
        let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        if path.is_file() { Ok(path) } else { Err(anyhow!("{} was not built", path.display())) }
    };
    Ok(Binaries { agent: program("banyan-agent")?, aggregator: program("banyan-aggregator")? })
}
