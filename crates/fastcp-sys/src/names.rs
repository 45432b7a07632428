//! Who is asked for the names of hosts, users and groups.
//!
//! `nsswitch.conf` lists services for each kind of name. Most are shared libraries, which the C library loads when it comes
//! to them. A statically linked program cannot do that: with glibc 2.36 it crashes, even with libraries of the same version. One
//! file of a user who is not in `/etc/passwd` is enough where the line is `passwd: files systemd`, as Debian has it. So such a
//! program is told to ask only the services that are part of it: the files in `/etc`, and DNS for hosts.

/// Has a statically linked program load no services; one that is linked to the system's C library asks all of them, as ever. To be
/// called before there are other threads.
pub fn ask_built_in_services() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    for (names, services) in [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")] {
        // SAFETY: both are strings that end, and no other thread looks anything up.
        let refused = unsafe { __nss_configure_lookup(names.as_ptr(), services.as_ptr()) };
        assert_eq!(refused, 0, "glibc knows {names:?} and has {services:?}");
    }
}

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
unsafe extern "C" {
    /// `nss.h`: uses these services in place of those of `nsswitch.conf`; not 0 where there is no such line.
    fn __nss_configure_lookup(names: *const libc::c_char, services: *const libc::c_char) -> libc::c_int;
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Gid, Group, Uid, User};

    use crate::resolve;

    /// Of interest where the tests are linked statically: `./static --check`.
    #[test]
    fn who_is_nobody_is_found_to_be_nobody() {
        super::ask_built_in_services();
        assert_eq!(User::from_uid(Uid::from_raw(4_000_000_001)), Ok(None));
        assert_eq!(Group::from_gid(Gid::from_raw(4_000_000_001)), Ok(None));
        assert_eq!(User::from_name("a user of no system"), Ok(None));
        assert_eq!(
            User::from_uid(Uid::from_raw(0)).map(|user| user.map(|user| user.name)),
            Ok(Some("root".to_owned()))
        );
        assert!(resolve::addresses("localhost", 1).is_ok_and(|found| !found.is_empty()));
    }
}
