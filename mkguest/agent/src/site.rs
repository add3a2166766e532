//! Where the guest's files are, and reading them with a bound. What a file says is
//! left to whoever asked for it.

use crate::sys;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;

/// No file that these programs read is anywhere near as large.
const FILE_LIMIT: usize = 1024 * 1024;

/// A root directory: the guest's own, or in tests one that looks like it.
#[derive(Clone, Default)]
pub struct Site {
    root: String,
}

impl Site {
    #[cfg(feature = "testing")]
    pub fn below(root: &str) -> Site {
        Site {
            root: root.to_owned(),
        }
    }

    /// How a shell calls mvm-confine.
    pub fn confine(&self) -> String {
        let program = self.path("/bin/mvm-confine");
        if cfg!(feature = "testing") {
            format!("{program} --root {}", self.root)
        } else {
            program
        }
    }

    /// The place of an absolute path of the guest's.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    /// The place of an absolute path of the guest's, for a system call; `InvalidInput`
    /// if it holds a NUL.
    pub fn c_path(&self, path: &str) -> io::Result<CString> {
        CString::new(self.path(path)).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    /// Reads a regular file whole; `FileTooLarge` over 1 MiB, `InvalidInput` if it is
    /// something else than a file. Never waits, whatever lies at the path.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let file = sys::open(
            &self.c_path(path)?,
            libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY,
        )?;
        if sys::regular_size(file.as_fd())?.is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut content = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match sys::read(file.as_fd(), &mut chunk)? {
                0 => return Ok(content),
                _ if content.len() > FILE_LIMIT => return Err(io::ErrorKind::FileTooLarge.into()),
                length => content.extend_from_slice(&chunk[..length]),
            }
        }
    }

    /// Reads a regular file of text; `InvalidData` if it is not UTF-8.
    pub fn read_text(&self, path: &str) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Writes to what exists at `path` already, such as a control file.
    pub fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let file = sys::open(&self.c_path(path)?, libc::O_WRONLY | libc::O_APPEND)?;
        sys::write(file.as_fd(), bytes).map(drop)
    }
}
