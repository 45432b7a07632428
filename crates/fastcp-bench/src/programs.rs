//! Which programs there are: fastcp's own beside this one, the others in PATH.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Uid;

use crate::error::BenchError;
use crate::ssh;
use crate::tool::Tool;
use crate::variant::{Access, Variant};

/// Where administrators' programs lie, which a user's PATH may leave out.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// fastcp's programs and the benchmark's own.
#[derive(Debug)]
pub(crate) struct Programs {
    /// This program.
    pub(crate) bench: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) client: PathBuf,
    /// As `--version` says it.
    pub(crate) version: String,
}

impl Programs {
    /// Finds fastcp's programs in `bin_dir`, or beside this program.
    pub(crate) fn find(bin_dir: Option<&Path>) -> Result<Self, BenchError> {
        let bench = env::current_exe().map_err(BenchError::system("find this program"))?;
        let dir = bin_dir.or(bench.parent()).unwrap_or(Path::new("."));
        // They run with other working directories, and in other namespaces.
        let dir = dir.canonicalize().map_err(BenchError::file("find", dir))?;
        let built = |name: &str| {
            let path = dir.join(name);
            if path.is_file() { Ok(path) } else { Err(BenchError::NotBuilt { path }) }
        };
        let (server, client) = (built("fastcp-server")?, built("fastcp-client")?);
        let version = version(&client)?;
        Ok(Self { bench, server, client, version })
    }

    /// A word as the report shows it: programs by their names alone.
    pub(crate) fn shorten(&self, word: &str) -> Option<String> {
        let own = [&self.bench, &self.server, &self.client];
        let found = own.into_iter().find(|path| path.as_os_str() == word)?;
        Some(found.file_name()?.to_string_lossy().into_owned())
    }
}

fn version(client: &Path) -> Result<String, BenchError> {
    let spawn = |source| BenchError::Spawn { program: client.display().to_string(), source };
    let output = Command::new(client).arg("--version").stdin(Stdio::null()).output().map_err(spawn)?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().last().unwrap_or("unknown").to_owned())
}

/// Why a tool cannot run here, and what to do about it; `None` where it can.
pub(crate) fn obstacle(tool: Tool) -> Option<String> {
    let by_ssh = |own: &[&'static str]| missing(&[&ssh::PROGRAMS, own].concat());
    let needed: &[&str] = match tool {
        Tool::Fastcp(Variant { access: Access::Ssh, .. }) => return by_ssh(&[]),
        Tool::RsyncSsh => return by_ssh(&["rsync"]),
        Tool::Scp => return by_ssh(&["scp"]),
        Tool::TarSsh => return by_ssh(&["tar"]),
        Tool::Fastcp(_) | Tool::Bare | Tool::Create => &[],
        Tool::Cp => &["cp"],
        Tool::Tar => &["tar", "socat"],
        Tool::Rsync | Tool::RsyncZ => &["rsync"],
        Tool::Rclone => &["rclone"],
        Tool::Syq { .. } => &["syq"],
    };
    missing(needed)
}

/// Which of these programs is not installed, and how to get it.
pub(crate) fn missing(needed: &[&str]) -> Option<String> {
    let absent = needed.iter().find(|name| find_in_path(name).is_none())?;
    let package = match *absent {
        "mount" => "util-linux",
        "mkfs.ext4" => "e2fsprogs",
        "ip" => "iproute2",
        "cp" => "coreutils",
        "sshd" => "openssh-server",
        "ssh" | "ssh-keygen" | "scp" => "openssh-client",
        same => same,
    };
    Some(match *absent {
        "syq" => "syq is not installed: cargo install syq --locked".to_owned(),
        _ => format!("{absent} is not installed: apt-get install {package}"),
    })
}

/// Whether this process may mount, and make network namespaces.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Where a program lies.
pub(crate) fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.extend(SYSTEM_DIRS.map(PathBuf::from));
    dirs.into_iter().map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// PATH with the administrators' directories, for what is started.
pub(crate) fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    for dir in SYSTEM_DIRS.map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    env::join_paths(dirs).unwrap_or(path)
}
