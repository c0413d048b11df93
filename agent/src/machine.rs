//! Which machine this is, so that a disk copied to another PC is noticed.

use banyan_shared::keys::sha256;

/// A fingerprint of the machine from the id its operating system was installed with; none if it has none.
pub fn fingerprint() -> Option<u64> {
    let id = system_id()?;
    let id = id.trim();
    if id.is_empty() {
        return None;
    }
    let digest = sha256(&[b"banyan/v1/machine\0", id.as_bytes()]);
    Some(u64::from_le_bytes(digest[..8].try_into().expect("a slice of eight bytes is eight bytes")))
}

#[cfg(not(windows))]
fn system_id() -> Option<String> {
    ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
}

#[cfg(windows)]
fn system_id() -> Option<String> {
    // The registry by its own tool: one start of the agent asks once, and no more code is needed.
    let output = std::process::Command::new("reg")
        .args(["query", r"HKLM\SOFTWARE\Microsoft\Cryptography", "/v", "MachineGuid"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().last().filter(|word| word.len() >= 32).map(str::to_owned)
}
