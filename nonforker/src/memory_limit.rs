//! How much memory this process may use: that of its control group, if that is limited, else of the
//! machine.
//!
//! ```text
//!  /proc/self/cgroup      which group      4:memory:/system.slice/echo.service    0::/user.slice
//!  /proc/self/mountinfo   where groups     a mount shows a part of all groups: `root` names the
//!                         can be read      topmost group it shows, at its mount point
//!                 │
//!                 ▼
//!  the group ──▶ its parent ──▶ … ──▶ the mount point     the least limit of them all counts
//! ```
//!
//! A limit on a group is a limit on every group inside it. So all groups are read from the own one
//! up to the topmost that can be seen. Version 1 and version 2 can be mounted at the same time, with
//! the memory controller in either of them. So both are read.
//!
//! `memory.high` is not read: beyond it the kernel slows a process down and does not end it.
//!
//! What cannot be read or understood is left out. Nothing here fails.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

const KIB: usize = 1024;

/// What is assumed where neither the machine nor a group says anything: 1 GiB.
const UNKNOWN: usize = 1 << 30;

/// Where the number of bytes comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A control group that this process is in.
    Cgroup,
    /// The machine.
    Machine,
    /// Nothing could be read.
    Unknown,
}

/// The memory this process may use, in bytes.
pub(crate) fn memory() -> (usize, Source) {
    memory_under(Path::new("/"))
}

/// The same for the system whose root folder this is.
fn memory_under(root: &Path) -> (usize, Source) {
    let machine = memory_of_machine(root);
    match limit_of_cgroup(root) {
        // A group that allows more than there is limits nothing.
        Some(limit) if machine.is_none_or(|machine| limit < machine) => (limit, Source::Cgroup),
        _ => machine.map_or((UNKNOWN, Source::Unknown), |machine| (machine, Source::Machine)),
    }
}

fn memory_of_machine(root: &Path) -> Option<usize> {
    let text = read(&root.join("proc/meminfo"))?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.split_ascii_whitespace().next()?.parse::<usize>().ok()?.checked_mul(KIB)
}

/// The tightest limit of the groups this process is in, for both versions of control groups.
fn limit_of_cgroup(root: &Path) -> Option<usize> {
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = read(&root.join("proc/self/mountinfo"));
    let limits = [Version::One, Version::Two].into_iter().filter_map(|version| {
        let group = groups.lines().find_map(|line| version.group(line)).unwrap_or("/");
        let mounts = match &mounts {
            Some(text) => text.lines().filter_map(|line| version.mount(line)).collect(),
            None => vec![version.usual_mount()],
        };
        groups_in_sight(Path::new(group), &mounts)
            .iter()
            .filter_map(|folder| version.limit_in(&below(root, folder)))
            .min()
    });
    limits.min()
}

/// The two versions of control groups, which name and write down everything differently.
#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

/// A place where control groups can be read.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// The group that is seen at the mount point.
    root: PathBuf,
    point: PathBuf,
}

impl Version {
    /// The path of the group, if this line of `/proc/self/cgroup` is about memory:
    /// `number:controllers:path`. Version 2 has the number 0 and no list of controllers.
    fn group(self, line: &str) -> Option<&str> {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_it = match self {
            Self::One => controllers.split(',').any(|controller| controller == "memory"),
            Self::Two => number == "0" && controllers.is_empty(),
        };
        is_it.then_some(path)
    }

    /// What this line of `/proc/self/mountinfo` says, if it is about a mount of this version:
    ///
    /// ```text
    /// 35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
    ///            root mount point          none or some of them   type        options
    /// ```
    fn mount(self, line: &str) -> Option<Mount> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let is_it = match self {
            Self::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
            Self::Two => kind == "cgroup2",
        };
        is_it.then(|| Mount { root: unescape(root).into(), point: unescape(point).into() })
    }

    /// Where it is mounted on most systems.
    fn usual_mount(self) -> Mount {
        let point = match self {
            Self::One => "/sys/fs/cgroup/memory",
            Self::Two => "/sys/fs/cgroup",
        };
        Mount { root: "/".into(), point: point.into() }
    }

    /// The limit of the group in this folder, in bytes, if it has one.
    fn limit_in(self, folder: &Path) -> Option<usize> {
        match self {
            Self::One => {
                let own = read(&folder.join("memory.limit_in_bytes"));
                let own = own.and_then(|text| bytes(&text));
                // The kernel knows the limits of groups further up, which nobody may see here.
                let stat = read(&folder.join("memory.stat")).unwrap_or_default();
                let all = stat
                    .lines()
                    .find_map(|line| line.strip_prefix("hierarchical_memory_limit "))
                    .and_then(bytes);
                own.into_iter().chain(all).min()
            }
            Self::Two => bytes(&read(&folder.join("memory.max"))?),
        }
    }
}

/// The folders of `group` and of all groups it is in, as far as the mounts show them.
fn groups_in_sight(group: &Path, mounts: &[Mount]) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for Mount { root, point } in mounts {
        // Both paths can begin with `/..`: they are relative to the root of our namespace.
        let Ok(inside) = group.strip_prefix(root) else { continue };
        if inside.components().all(|part| matches!(part, Component::Normal(_))) {
            folders.extend(inside.ancestors().map(|inside| point.join(inside)));
        }
    }
    if folders.is_empty() {
        // No mount shows the own group. Most likely it is somewhere inside of what is mounted.
        folders.extend(mounts.iter().map(|mount| mount.point.clone()));
    }
    folders
}

/// An absolute path as it is found below another root folder.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A number of bytes. `max` is none.
fn bytes(text: &str) -> Option<usize> {
    let bytes = text.trim().parse::<u64>().ok()?;
    Some(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// A file of the kernel's. What is not UTF-8 in it is nothing that is looked for here.
fn read(path: &Path) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Undoes what `mountinfo` does to blanks, line ends and backslashes: ` ` is written as `\040`.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = escape.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                plain.push(code.into());
                rest = &escape[3..];
            }
            None => {
                plain.push('\\');
                rest = escape;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs, process,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::{
        Path, PathBuf,
        Source::{Cgroup, Machine, Unknown},
        memory, memory_under, unescape,
    };

    const MIB: usize = 1 << 20;

    /// A root folder with these files in it, which goes at the end. A path that ends with a slash is
    /// a folder where a file is expected: nobody can read it, not even root.
    struct Tree(PathBuf);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("nonforker-tree-{}-{}", process::id(), COUNT.fetch_add(1, Relaxed));
            let root = env::temp_dir().join(name);
            for (path, text) in files {
                let path = root.join(path.trim_start_matches('/'));
                let is_folder = path.to_str().is_some_and(|path| path.ends_with('/'));
                let folder = if is_folder { Some(path.as_path()) } else { path.parent() };
                fs::create_dir_all(folder.expect("it is in the tree")).unwrap();
                if !is_folder {
                    fs::write(path, text).unwrap();
                }
            }
            fs::create_dir_all(&root).unwrap();
            Self(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    // Lines as kernels write them.
    const MACHINE: (&str, &str) =
        ("/proc/meminfo", "MemTotal:        1048576 kB\nMemFree:          524288 kB\n");
    const V2: &str =
        "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "23 1 8:1 / / rw - ext4 /dev/sda rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:10 master:3 - cgroup cgroup rw,memory\n";
    const HYBRID: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const NONE_V1: &str = "9223372036854771712\n";
    const MOUNTS: &str = "/proc/self/mountinfo";
    const GROUP: &str = "/proc/self/cgroup";

    #[test]
    #[rustfmt::skip]
    fn the_tightest_limit_on_the_way_up_counts() {
        let v1 = "/sys/fs/cgroup/memory";
        let v1_unit = &format!("{v1}/system.slice/echo.service/memory.limit_in_bytes");
        let v1_slice = &format!("{v1}/system.slice/memory.limit_in_bytes");
        let v1_root = &format!("{v1}/memory.limit_in_bytes");
        let v1_group = "5:cpu,cpuacct:/\n4:memory:/system.slice/echo.service\n0::/system.slice\n";
        let v2_group = "0::/system.slice/echo.service\n";
        let v2_unit = "/sys/fs/cgroup/system.slice/echo.service/memory.max";
        let v2_slice = "/sys/fs/cgroup/system.slice/memory.max";
        for (name, files, bytes, source) in [
            ("v2, a unit", vec![(GROUP, v2_group), (MOUNTS, V2), (v2_unit, "268435456\n"), (v2_slice, "max\n")], 256 * MIB, Cgroup),
            ("v2, its slice", vec![(GROUP, v2_group), (MOUNTS, V2), (v2_unit, "max\n"), (v2_slice, "134217728\n")], 128 * MIB, Cgroup),
            ("v2, both", vec![(GROUP, v2_group), (MOUNTS, V2), (v2_unit, "134217728\n"), (v2_slice, "268435456\n")], 128 * MIB, Cgroup),
            ("v2, the root's", vec![(GROUP, "0::/\n"), (MOUNTS, V2), ("/sys/fs/cgroup/memory.max", "268435456\n")], 256 * MIB, Cgroup),
            ("v2, no limit", vec![(GROUP, v2_group), (MOUNTS, V2), (v2_unit, "max\n"), (v2_slice, "max\n")], 1024 * MIB, Machine),
            ("v2, memory.high decides nothing", vec![(GROUP, v2_group), (MOUNTS, V2), (v2_unit, "max\n"), ("/sys/fs/cgroup/system.slice/echo.service/memory.high", "1048576\n")], 1024 * MIB, Machine),
            ("v2, more than there is", vec![(GROUP, v2_group), (MOUNTS, V2), (v2_unit, "8589934592\n")], 1024 * MIB, Machine),
            ("v2, as much as there is", vec![(GROUP, v2_group), (MOUNTS, V2), (v2_unit, "1073741824\n")], 1024 * MIB, Machine),
            ("v2, more than can be", vec![(GROUP, v2_group), (MOUNTS, V2), (v2_unit, "99999999999999999999999\n")], 1024 * MIB, Machine),
            ("v2, another's limit", vec![(GROUP, v2_group), (MOUNTS, V2), ("/sys/fs/cgroup/user.slice/memory.max", "1048576\n")], 1024 * MIB, Machine),
            ("v2, the group was removed", vec![(GROUP, "0::/system.slice/echo.service (deleted)\n"), (MOUNTS, V2), (v2_slice, "268435456\n")], 256 * MIB, Cgroup),

            ("v1, a unit", vec![(GROUP, v1_group), (MOUNTS, V1), (v1_unit, "268435456\n"), (v1_slice, NONE_V1), (v1_root, NONE_V1)], 256 * MIB, Cgroup),
            ("v1, its slice", vec![(GROUP, v1_group), (MOUNTS, V1), (v1_unit, NONE_V1), (v1_slice, "134217728\n")], 128 * MIB, Cgroup),
            ("v1, no limit", vec![(GROUP, v1_group), (MOUNTS, V1), (v1_unit, NONE_V1), (v1_slice, NONE_V1)], 1024 * MIB, Machine),
            ("v1, further up than can be seen", vec![(GROUP, "4:memory:/\n"), (MOUNTS, V1), (v1_root, NONE_V1), ("/sys/fs/cgroup/memory/memory.stat", "cache 5\nhierarchical_memory_limit 134217728\nhierarchical_memsw_limit 5\n")], 128 * MIB, Cgroup),
            ("v1, controllers together", vec![(GROUP, "4:cpu,memory:/a\n"), (MOUNTS, "35 31 0:32 / /cg rw - cgroup cgroup rw,cpu,memory\n"), ("/cg/a/memory.limit_in_bytes", "134217728\n")], 128 * MIB, Cgroup),

            ("hybrid, memory in v1", vec![(GROUP, v1_group), (MOUNTS, HYBRID), (v1_unit, "268435456\n")], 256 * MIB, Cgroup),
            ("hybrid, memory in v2", vec![(GROUP, v1_group), (MOUNTS, HYBRID), ("/sys/fs/cgroup/unified/system.slice/memory.max", "134217728\n")], 128 * MIB, Cgroup),

            ("a container that sees the host's paths", vec![(GROUP, "0::/lxc/web/init.scope\n"), (MOUNTS, "29 23 0:26 /lxc/web /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"), ("/sys/fs/cgroup/init.scope/memory.max", "max\n"), ("/sys/fs/cgroup/memory.max", "268435456\n")], 256 * MIB, Cgroup),
            ("a container that sees its own paths", vec![(GROUP, "0::/\n"), (MOUNTS, "29 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n"), ("/sys/fs/cgroup/memory.max", "268435456\n")], 256 * MIB, Cgroup),
            ("mounted from outside of the namespace", vec![(GROUP, "0::/\n"), (MOUNTS, "29 23 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup rw\n"), ("/sys/fs/cgroup/memory.max", "268435456\n")], 256 * MIB, Cgroup),
            ("beside the namespace, mounted from outside", vec![(GROUP, "0::/../../web\n"), (MOUNTS, "29 23 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup rw\n"), ("/sys/fs/cgroup/web/memory.max", "268435456\n")], 256 * MIB, Cgroup),
            ("beside the namespace, and not mounted", vec![(GROUP, "0::/../web\n"), (MOUNTS, V2), ("/sys/fs/web/memory.max", "1048576\n"), ("/sys/fs/cgroup/memory.max", "268435456\n")], 256 * MIB, Cgroup),
            ("another part is mounted too", vec![(GROUP, v2_group), (MOUNTS, &format!("30 23 0:26 /user.slice /mnt rw - cgroup2 cgroup2 rw\n{V2}")), ("/mnt/memory.max", "1048576\n"), (v2_unit, "268435456\n")], 256 * MIB, Cgroup),
            ("a part whose name begins alike", vec![(GROUP, "0::/web-2\n"), (MOUNTS, &format!("30 23 0:26 /web /mnt rw - cgroup2 cgroup2 rw\n{V2}")), ("/mnt/memory.max", "1048576\n"), ("/sys/fs/cgroup/web-2/memory.max", "268435456\n")], 256 * MIB, Cgroup),
            ("blanks in paths", vec![(GROUP, "0::/my web/a:b\n"), (MOUNTS, "29 23 0:26 /my\\040web /mnt/c\\134g\\040two rw - cgroup2 cgroup2 rw\n"), ("/mnt/c\\g two/a:b/memory.max", "268435456\n")], 256 * MIB, Cgroup),

            ("nothing about mounts, v2", vec![(GROUP, v2_group), (v2_unit, "268435456\n")], 256 * MIB, Cgroup),
            ("nothing about mounts, v1", vec![(GROUP, v1_group), (v1_slice, "268435456\n")], 256 * MIB, Cgroup),
            ("nothing about groups", vec![(MOUNTS, V2), ("/sys/fs/cgroup/memory.max", "268435456\n")], 256 * MIB, Cgroup),
            ("a limit that cannot be read", vec![(GROUP, v2_group), (MOUNTS, V2), ("/sys/fs/cgroup/system.slice/echo.service/memory.max/", ""), (v2_slice, "268435456\n")], 256 * MIB, Cgroup),
            ("nonsense", vec![(GROUP, "0\n:\n0::\n\n4:memory\n"), (MOUNTS, " - \n - cgroup2 x\n1 2 3 4 5 - cgroup2\na b c / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"), ("/sys/fs/cgroup/memory.max", "much\n")], 1024 * MIB, Machine),
            ("no groups", vec![], 1024 * MIB, Machine),
        ] {
            let tree = Tree::new(&[files.as_slice(), &[MACHINE]].concat());
            assert_eq!(memory_under(&tree.0), (bytes, source), "{name}");
        }
    }

    #[test]
    fn where_the_machine_says_nothing_a_group_may() {
        let limit = ("/sys/fs/cgroup/memory.max", "9000000000\n");
        for (name, files, expected) in [
            ("nothing at all", vec![], (1 << 30, Unknown)),
            ("a limit", vec![limit], (9_000_000_000, Cgroup)),
            ("nonsense", vec![("/proc/meminfo", "MemTotal: much\n")], (1 << 30, Unknown)),
        ] {
            assert_eq!(memory_under(&Tree::new(&files).0), expected, "{name}");
        }
    }

    #[test]
    fn this_machine_has_some_memory() {
        assert!(memory().0 >= 64 * MIB);
        assert!(Path::new("/proc/meminfo").exists() || memory().1 != Machine);
    }

    #[test]
    fn escapes_are_undone_and_what_is_none_stays() {
        for (text, plain) in [
            ("/a", "/a"),
            (r"/a\040b\011c\012d\134e", "/a b\tc\nd\\e"),
            (r"\040", " "),
            (r"/a\", r"/a\"),
            (r"/a\04", r"/a\04"),
            (r"/a\999é", r"/a\999é"),
            (r"/a\é\040", r"/a\é "),
        ] {
            assert_eq!(unescape(text), plain);
        }
    }
}
