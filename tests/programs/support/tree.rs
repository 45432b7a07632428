//! Builds trees: entries first, then owner, mode and time of each, children before parents, so that
//! read-only directories have files in them and directories keep their times.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

use super::{NOBODY, is_root};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A tree in the making.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    attributes: Vec<Attributes>,
}

/// What an entry has beside its content.
#[derive(Debug)]
struct Attributes {
    path: PathBuf,
    /// `None` for a symbolic link.
    mode: Option<u32>,
    mtime: (i64, i64),
    owner: Option<(u32, u32)>,
}

impl Tree {
    /// An empty tree at `root`, which must not exist yet.
    pub(crate) fn new(root: &Path) -> Self {
        fs::create_dir(root).expect("create the root");
        let mut tree = Self { root: root.to_path_buf(), attributes: Vec::new() };
        tree.push(root.to_path_buf(), Some(0o755));
        tree
    }

    pub(crate) fn dir(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        let path = self.at(path);
        fs::create_dir(&path).expect("create a directory");
        self.push(path, Some(0o755))
    }

    pub(crate) fn file(&mut self, path: impl AsRef<[u8]>, bytes: &[u8]) -> &mut Self {
        let path = self.at(path);
        fs::write(&path, bytes).expect("write a file");
        self.push(path, Some(0o644))
    }

    /// A file of `size` bytes that holds `data` at the given offsets and holes elsewhere.
    pub(crate) fn sparse(&mut self, path: impl AsRef<[u8]>, size: usize, data: &[(usize, &[u8])]) -> &mut Self {
        let path = self.at(path);
        let file = File::create(&path).expect("create a sparse file");
        file.set_len(size as u64).expect("set the length");
        for (offset, bytes) in data {
            file.write_all_at(bytes, *offset as u64).expect("write between holes");
        }
        self.push(path, Some(0o644))
    }

    pub(crate) fn link(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> &mut Self {
        let path = self.at(path);
        symlink(OsStr::from_bytes(target.as_ref()), &path).expect("make a link");
        self.push(path, None)
    }

    pub(crate) fn hard_link(&mut self, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        fs::hard_link(self.at(to), self.at(path)).expect("make a hard link");
    }

    pub(crate) fn special(&mut self, path: impl AsRef<[u8]>, kind: SFlag) -> &mut Self {
        let path = self.at(path);
        mknod(&path, kind, Mode::S_IRUSR | Mode::S_IWUSR, 0).expect("make a special file");
        self.push(path, Some(0o600))
    }

    /// Sets the mode of the entry made last.
    pub(crate) fn mode(&mut self, mode: u32) -> &mut Self {
        self.last().mode = Some(mode);
        self
    }

    /// Sets the time of the entry made last.
    pub(crate) fn mtime(&mut self, secs: i64, nanos: i64) -> &mut Self {
        self.last().mtime = (secs, nanos);
        self
    }

    /// Sets owner and group of the entry made last, where this process may.
    pub(crate) fn owner(&mut self, uid: u32, gid: u32) -> &mut Self {
        self.last().owner = is_root().then_some((uid, gid));
        self
    }

    /// Gives every entry to the unprivileged user, where this process may.
    pub(crate) fn give_to_nobody(&mut self) {
        if is_root() {
            self.attributes.iter_mut().for_each(|one| one.owner = Some((NOBODY, NOBODY)));
        }
    }

    /// Sets all attributes; the tree is complete.
    pub(crate) fn finish(&self) -> PathBuf {
        self.attributes.iter().rev().for_each(Attributes::set);
        self.root.clone()
    }

    fn at(&self, path: impl AsRef<[u8]>) -> PathBuf {
        self.root.join(OsStr::from_bytes(path.as_ref()))
    }

    fn push(&mut self, path: PathBuf, mode: Option<u32>) -> &mut Self {
        let nth = self.attributes.len() as i64;
        let mtime = (1_600_000_000 + nth, 123_456_789 + nth);
        self.attributes.push(Attributes { path, mode, mtime, owner: None });
        self
    }

    fn last(&mut self) -> &mut Attributes {
        self.attributes.last_mut().expect("the root is always there")
    }
}

impl Attributes {
    fn set(&self) {
        if let Some((uid, gid)) = self.owner {
            lchown(&self.path, Some(uid), Some(gid)).expect("chown");
        }
        if let Some(mode) = self.mode {
            fs::set_permissions(&self.path, Permissions::from_mode(mode)).expect("chmod");
        }
        set_mtime(&self.path, self.mtime.0, self.mtime.1);
    }
}

/// Sets the time of whatever is at `path`, of a link itself.
pub(crate) fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = TimeSpec::new(secs, nanos);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).expect("set the time");
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(count)
    .collect()
}

/// Bytes that compress well, no two lines alike.
pub(crate) fn text(count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(count + 64);
    for line in 0u64.. {
        if out.len() >= count {
            break;
        }
        out.extend_from_slice(format!("line {line} of a text that compresses well enough\n").as_bytes());
    }
    out.truncate(count);
    out
}

/// A few plain files of a few hundred KiB, enough for any test that is not about the tree.
pub(crate) fn plain(root: &Path) -> PathBuf {
    let mut tree = Tree::new(root);
    tree.dir("sub").file("sub/text", &text(200 * KIB)).file("sub/small", b"small");
    tree.file("noise", &noise(300 * KIB, 1)).file("empty", b"").link("link", "sub/text");
    tree.finish()
}

/// The tree that holds everything.
pub(crate) fn everything(root: &Path) -> Tree {
    let mut tree = Tree::new(root);
    put_names(&mut tree);
    put_sizes(&mut tree);
    put_sparse_files(&mut tree);
    put_modes(&mut tree);
    put_times(&mut tree);
    put_links(&mut tree);
    put_specials(&mut tree);
    put_many(&mut tree);
    put_deep(&mut tree);
    put_owners(&mut tree);
    tree
}

/// How many entries of [`everything`] are skipped: a pipe and a socket.
pub(crate) const EVERYTHING_SPECIALS: u64 = 2;

fn put_names(tree: &mut Tree) {
    tree.dir("names");
    let long = [b'n'; 255];
    let names: [&[u8]; 12] = [
        b"with space ",
        b" ",
        b"-rf",
        b"--help",
        b"new\nline",
        b"\n",
        b"not utf-8 \xff\xfe",
        b"\x01\x7f\t",
        b".hidden",
        b"...",
        b"back\\slash*?[]\"'$`",
        &long,
    ];
    for name in names {
        tree.file([b"names/", name].concat(), name);
    }
    tree.dir(b"names/dir \xe9\n").file(b"names/dir \xe9\n/\xff", b"deep in odd names");
    tree.dir("names/.fastcp").file("names/.fastcp/kept", b"only the one at the top is state");
}

fn put_sizes(tree: &mut Tree) {
    tree.dir("sizes");
    let (small_chunk, chunk) = (64 * KIB, MIB);
    let around = |size: usize| [size - 1, size, size + 1];
    let several = [3 * chunk + 17, 5 * small_chunk + 1];
    let sizes = [0, 1, 255].into_iter().chain(around(4 * KIB)).chain(around(small_chunk)).chain(around(chunk));
    for size in sizes.chain(several) {
        tree.file(format!("sizes/noise-{size}"), &noise(size, size as u64));
        tree.file(format!("sizes/text-{size}"), &text(size));
    }
    tree.file("sizes/zeros, written", &vec![0; 300 * KIB]);
    tree.file("sizes/mixed", &[text(500 * KIB), noise(700 * KIB, 3), vec![0; 400 * KIB], text(9)].concat());
}

fn put_sparse_files(tree: &mut Tree) {
    tree.dir("sparse");
    let data = noise(MIB / 2, 5);
    tree.sparse("sparse/middle", 5 * MIB + 123, &[(2 * MIB, &data), (3 * MIB + 5, b"island")]);
    tree.sparse("sparse/all hole", 3 * MIB, &[]);
    tree.sparse("sparse/small hole", 10 * KIB, &[]);
    tree.sparse("sparse/small", 64 * KIB, &[(40 * KIB, b"x")]);
    tree.sparse("sparse/end", 2 * MIB, &[(2 * MIB - 1, b"x")]);
    tree.sparse("sparse/start", 2 * MIB + 1, &[(0, &text(70 * KIB))]);
}

fn put_modes(tree: &mut Tree) {
    tree.dir("modes");
    for mode in [0o400, 0o444, 0o600, 0o777, 0o4755, 0o2755, 0o6711, 0o1644] {
        tree.file(format!("modes/file {mode:o}"), b"mode").mode(mode);
        tree.file(format!("modes/large {mode:o}"), &noise(150 * KIB, mode.into())).mode(mode);
    }
    for mode in [0o700, 0o711, 0o1777, 0o2775, 0o3777, 0o500] {
        tree.dir(format!("modes/dir {mode:o}")).mode(mode);
        tree.file(format!("modes/dir {mode:o}/file"), b"within");
    }
    tree.dir("modes/read-only").mode(0o555);
    tree.dir("modes/read-only/below").mode(0o555);
    tree.file("modes/read-only/file", b"in a read-only directory").mode(0o444);
    tree.file("modes/read-only/below/large", &noise(200 * KIB, 9)).mode(0o400);
    tree.link("modes/read-only/link", "file");
    tree.dir("modes/empty read-only").mode(0o555);
}

fn put_times(tree: &mut Tree) {
    tree.dir("times").mtime(-86_400, 999_999_999);
    let times = [(0, 0), (0, 1), (-1, 1), (-1_000_000_000, 5), (1_700_000_000, 999_999_999), (4_000_000_000, 7)];
    for (secs, nanos) in times {
        tree.file(format!("times/file {secs}.{nanos}"), b"time").mtime(secs, nanos);
        tree.file(format!("times/large {secs}.{nanos}"), &text(130 * KIB)).mtime(secs, nanos);
        tree.dir(format!("times/dir {secs}.{nanos}")).mtime(secs, nanos);
        tree.file(format!("times/dir {secs}.{nanos}/later"), b"than its directory");
        tree.link(format!("times/link {secs}.{nanos}"), "nowhere").mtime(secs, nanos);
    }
}

fn put_links(tree: &mut Tree) {
    tree.dir("links").dir("links/dir").file("links/file", b"pointed at");
    tree.link("links/to file", "file").link("links/to dir", "dir").link("links/dangling", "gone/away");
    tree.link("links/absolute", "/etc/passwd").link("links/up", "../../../..").link("links/to itself", "to itself");
    tree.link("links/odd", b"\xff\n ");
    tree.link("links/long", "l".repeat(link_bytes_max(&tree.at("links/tried"))));
    tree.hard_link("links/same as file", "links/file");
}

/// How long a link's target may be: XFS takes 1,023 bytes, others 4,095.
fn link_bytes_max(tried: &Path) -> usize {
    let is_taken = |bytes: &usize| symlink("l".repeat(*bytes), tried).is_ok();
    let bytes = [4000, 1023].into_iter().find(is_taken).expect("a long link");
    fs::remove_file(tried).expect("remove");
    bytes
}

fn put_specials(tree: &mut Tree) {
    tree.dir("specials").file("specials/file", b"beside them");
    tree.special("specials/pipe", SFlag::S_IFIFO).special("specials/socket", SFlag::S_IFSOCK);
}

fn put_many(tree: &mut Tree) {
    tree.dir("many").dir("empty").dir("empty/nested").dir("empty/nested/deeper");
    for nth in 0..300 {
        tree.file(format!("many/{nth}"), format!("file {nth}").repeat(nth % 50).as_bytes());
    }
}

fn put_deep(tree: &mut Tree) {
    let mut path = "deep".to_owned();
    for level in 0..60 {
        tree.dir(&path);
        if level % 20 == 19 {
            tree.file(format!("{path}/file"), path.as_bytes());
        }
        path += &format!("/level {level}");
    }
}

fn put_owners(tree: &mut Tree) {
    tree.dir("owners").owner(12_345, 54_321).mode(0o750);
    tree.file("owners/numeric", b"owned").owner(12_345, 54_321).mode(0o6755);
    tree.file("owners/large", &noise(150 * KIB, 4)).owner(2, 3).mode(0o4711);
    tree.file("owners/named", b"owned").owner(1, 1);
    tree.file("owners/group only", b"owned").owner(0, 7).mode(0o2755);
    tree.link("owners/link", "numeric").owner(12_345, 1);
}
