//! `fastcp-client get`: one file, to a file or to standard output.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fastcp_engine::{GetError, GetOutput, GetSettings};
use fastcp_model::{Escaped, Status};

use crate::address::ServerAddress;
use crate::args::GetArgs;
use crate::course::Course;
use crate::exit_code::{self, Failure};
use crate::from::From;
use crate::output::{Format, Output};
use crate::reach::{Reached, Unprotected};
use crate::sandbox::{self, Allowed};
use crate::screen::Screen;
use crate::setup::{format, server_at};
use crate::watched::watched_copy;
use crate::wording::shown;

/// What `get` is to fetch, from where, and where to.
struct Wanted {
    server: ServerAddress,
    path: OsString,
    out: Option<PathBuf>,
}

/// HOST PORT PATH [OUT], or fcp://HOST[:PORT]/PATH [OUT].
fn wanted(words: &[OsString]) -> Result<Wanted, Failure> {
    let usage = |message: String| Failure::new(exit_code::USAGE, message);
    let is_url = |word: &OsString| word.as_bytes().get(..6).is_some_and(|six| six.eq_ignore_ascii_case(b"fcp://"));
    match words {
        [url] | [url, _] if is_url(url) => {
            let out = words.get(1).map(PathBuf::from);
            match From::parse(url).map_err(|error| usage(error.to_string()))? {
                From::Server { server, path, .. } => {
                    let path = OsString::from_vec(path.as_bytes().to_vec());
                    Ok(Wanted { server, path, out })
                }
                From::Local { .. } | From::Shell(_) => Err(usage("get fetches from a server".to_owned())),
            }
        }
        [host, port, path, rest @ ..] if rest.len() <= 1 => {
            let port = port.to_str().and_then(|port| port.parse().ok()).filter(|&port| port > 0);
            let port = port.ok_or_else(|| usage("PORT must be a number from 1 to 65535".to_owned()))?;
            let server = server_at(host.as_bytes(), port)?;
            let out = rest.first().map(PathBuf::from);
            Ok(Wanted { server, path: path.clone(), out })
        }
        _ => Err(usage("expected <HOST> <PORT> <PATH> [OUT], or fcp://HOST[:PORT]/PATH [OUT]".to_owned())),
    }
}

pub(crate) fn get(args: GetArgs, screen: &Arc<Screen>) -> Result<u8, Failure> {
    let Wanted { server, path, out } = wanted(&args.words)?;
    let reached = Reached::server(&server, &args.trust, Unprotected::Usual)?;
    let out = Out::of(&path, out)?;
    let settings = GetSettings { retry: Duration::from_secs(args.retry.retry), require_crc: args.require_crc };
    let path = path.into_vec();
    let format = match (&out, format(&args.output)) {
        (Out::File(_), format) => format,
        (Out::Stdout, Format::Json) => {
            return Err(Failure::new(
                exit_code::USAGE,
                "--json needs standard output for its events: give a file as OUT",
            ));
        }
        (Out::Stdout, _) => Format::Quiet,
    };
    // Not the buffered one, which looks for the ends of lines.
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let mut stdout =
        stdout.map_err(|error| Failure::new(exit_code::FILE_IO, format!("cannot use standard output: {error}")))?;
    if !args.sandbox.no_sandbox {
        let beside = out.dir().map(|dir| sandbox::place_of(&dir));
        sandbox::enter(&Allowed {
            read: Vec::new(),
            write: beside.into_iter().chain(reached.place_to_remember()).collect(),
        });
    }
    let output = Output::new(format, screen);
    Ok(watched_copy(&reached, &output, Course::Get, |dialer, report| {
        let out = match (&out, &mut stdout) {
            (Out::File(path), _) => GetOutput::File(path),
            (Out::Stdout, stdout) => GetOutput::Stream(stdout),
        };
        match fastcp_engine::get(dialer, &path, out, &settings, report) {
            Ok(got) => {
                let warning = "the server did not give a CRC-32; only the length was checked";
                (exit_code::DONE, (!got.proven).then(|| warning.to_owned()))
            }
            Err(error) => {
                let code = exit_code::of_get_error(&error);
                let advice = match error {
                    GetError::Refused(Status::IsADirectory) => {
                        format!("; to copy a directory: fastcp-client pull fcp://{}/PATH DIR", dialer.endpoint())
                    }
                    _ => String::new(),
                };
                (code, Some(format!("cannot get \"{}\": {error}{advice}", Escaped(&path))))
            }
        }
    }))
}

/// Where `get` puts the file.
enum Out {
    File(PathBuf),
    Stdout,
}

impl Out {
    /// Where the file is put together.
    fn dir(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => std::path::absolute(path).ok()?.parent().map(PathBuf::from),
            Self::Stdout => None,
        }
    }

    /// A directory, or a path that ends in a slash, takes the file under its own name.
    fn of(path: &OsStr, out: Option<PathBuf>) -> Result<Self, Failure> {
        let name = path.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        if matches!(name, b"" | b"." | b"..") {
            return Err(Failure::new(exit_code::USAGE, "PATH must be the path of a file"));
        }
        let name = OsStr::from_bytes(name);
        Ok(match out {
            None => Self::File(PathBuf::from(name)),
            Some(out) if out.as_os_str() == "-" => Self::Stdout,
            Some(dir) if dir.is_dir() => Self::File(dir.join(name)),
            Some(dir) if dir.as_os_str().as_bytes().ends_with(b"/") => {
                return Err(Failure::new(exit_code::FILE_IO, format!("no such directory: \"{}\"", shown(&dir))));
            }
            Some(file) => Self::File(file),
        })
    }
}
