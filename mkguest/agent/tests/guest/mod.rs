//! A directory that looks like a guest to the programs, for one test each.

use serde_json::{json, Value};
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Guest {
    pub root: PathBuf,
}

impl Guest {
    /// A guest with the users root, web (1100, in mvm) and mvm (900), no services and no
    /// checks; removed when dropped.
    pub fn new() -> Guest {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mvm-agent-test-{}-{number}", std::process::id());
        let guest = Guest {
            root: std::env::temp_dir().join(name),
        };
        guest.write(
            "/etc/passwd",
            "root:x:0:0::/root:/bin/sh\n\
             also-root:x:0:0::/root:/bin/sh\n\
             mvm:x:900:900::/home/mvm:/bin/sh\n\
             web:x:1100:1100::/home/web:/bin/sh\n",
        );
        guest.write(
            "/etc/group",
            "root:x:0:\nmvm:x:900:mvm,web\nweb:x:1100:\nother:x:7:\n",
        );
        guest.write("/etc/mvm/service-group", "mvm\n");
        guest.write_json(
            "/etc/mvm/environment.json",
            &json!({"PATH": "/usr/bin:/bin"}),
        );
        guest.write("/proc/loadavg", "0.01 0.00 0.00 1/60 99\n");
        guest.write("/proc/mounts", "/dev/root / ext4 rw,relatime 0 0\n");
        guest.write("/dev/kmsg", "");
        guest
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        // The listener is another user, whatever this test's umask is.
        for ancestor in path
            .ancestors()
            .take_while(|path| path.starts_with(&self.root))
        {
            let mode = if ancestor.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(ancestor, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    pub fn write_json(&self, path: &str, content: &Value) {
        self.write(path, content.to_string());
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Makes a plain directory look like the cgroup `KIND-NAME`.
    pub fn cgroup(&self, name: &str) {
        self.write(&format!("/sys/fs/cgroup/mvm/{name}/cgroup.procs"), "");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub fn is_root() -> bool {
    // SAFETY: geteuid touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Says on the test's output why it shows nothing here.
pub fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
}

/// A cgroup of this machine's own in place of the guest's, or None if there is none.
pub struct RealCgroup {
    path: PathBuf,
}

impl RealCgroup {
    pub fn under(guest: &Guest) -> Option<RealCgroup> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mounted = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields[2] == "cgroup2")?;
        let path = Path::new(mounted[1]).join(guest.root.file_name()?);
        fs::create_dir(&path).ok()?;
        let place = guest.path("/sys/fs/cgroup");
        fs::create_dir_all(place.parent()?).ok()?;
        symlink(&path, place).ok()?;
        Some(RealCgroup { path })
    }
}

impl Drop for RealCgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        // A cgroup can go once the killed processes are gone.
        for _ in 0..100 {
            if remove_cgroup(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
