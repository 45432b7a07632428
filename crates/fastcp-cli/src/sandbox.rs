//! What a process may still open, once it knows what it serves or receives: Landlock, where the kernel has it.
//!
//! Everything below the root is opened by descriptor and beneath it anyway. This is for the case that something there is
//! wrong: then the kernel refuses what lies elsewhere. It has to be entered before threads start, which inherit it. What it
//! cannot do on an old kernel is left out; nothing fails for want of it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
};

/// The newest rules that are asked for; older kernels have fewer.
const ABI_WANTED: ABI = ABI::V5;

/// What is read beside the tree: users and groups, time zones, libraries that look up names, and this process itself.
const READ: [&str; 9] = ["/etc", "/usr", "/lib", "/lib64", "/bin", "/run", "/proc", "/sys/fs", "/var/lib/sss"];

/// What a process may open.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    pub(crate) read: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
}

/// Lets this process, and whatever it starts from now on, open nothing else. Answers whether that is so.
pub(crate) fn enter(allowed: &Allowed) -> bool {
    match restrict(allowed) {
        Ok(RulesetStatus::NotEnforced) => {
            tracing::debug!("no sandbox: the kernel has no Landlock");
            false
        }
        Ok(status) => {
            let is_refused = is_refused(allowed);
            if !is_refused {
                tracing::warn!("the sandbox refuses nothing");
            }
            tracing::debug!(?status, "in a sandbox");
            is_refused
        }
        Err(error) => {
            tracing::warn!(%error, "no sandbox");
            false
        }
    }
}

fn restrict(allowed: &Allowed) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
    let (all, read) = (AccessFs::from_all(ABI_WANTED), AccessFs::from_read(ABI_WANTED));
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?.create()?;
    // The kernel looks a file's rule up among all of them, and for each directory above it: few rules are quick.
    let places: BTreeSet<PathBuf> =
        allowed.read.iter().chain(&READ.map(PathBuf::from)).filter_map(|path| fs::canonicalize(path).ok()).collect();
    let is_beneath_another = |place: &Path| place.ancestors().skip(1).any(|above| places.contains(above));
    for path in places.iter().filter(|place| !is_beneath_another(place)) {
        if let Some(rule) = beneath(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(rule, read))?;
        }
    }
    #[cfg(feature = "counts")]
    let counts = crate::counts::dir();
    #[cfg(not(feature = "counts"))]
    let counts: Option<PathBuf> = None;
    let temporary = std::env::temp_dir();
    for path in allowed.write.iter().chain([&temporary]).chain(&counts) {
        if let Some(rule) = beneath(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(rule, all))?;
        }
    }
    for device in ["/dev/null", "/dev/urandom"] {
        if let Some(rule) = beneath(Path::new(device)) {
            ruleset = ruleset.add_rule(PathBeneath::new(rule, AccessFs::ReadFile | AccessFs::WriteFile))?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Where something is made that may not be there yet: the nearest directory above it that is.
pub(crate) fn place_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|place| place.exists()).map_or_else(|| "/".into(), Path::to_owned)
}

/// What is not there needs no right.
fn beneath(path: &Path) -> Option<PathFd> {
    PathFd::new(path).ok()
}

/// Whether something that is not allowed is refused; yes where there is nothing to try.
fn is_refused(allowed: &Allowed) -> bool {
    // Whoever serves the root of all, or writes to it, may open everything.
    let is_everything = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|path| path == Path::new("/"));
    allowed.read.iter().chain(&allowed.write).any(is_everything)
        || fs::read_dir("/").is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}
