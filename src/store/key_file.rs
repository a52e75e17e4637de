//! The default encryption key: a generated file beside the database. It protects a copy of the database alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::files;
use super::seal::{Keys, random};
use crate::error::{Error, Result};

/// Where a database's key file is.
pub fn path_of(database: &Path) -> PathBuf {
    files::beside(database, ".key")
}

/// The key in the file, if there is a file.
pub fn read(database: &Path) -> Result<Option<Keys>> {
    let path = path_of(database);
    let mut text = Zeroizing::new(String::with_capacity(4096));
    match File::open(&path).and_then(|file| file.take(4096).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(files::explain("read", &path, &error)),
    }
    let mut key = Zeroizing::new([0; 32]);
    match STANDARD.decode_slice(text.trim(), &mut *key) {
        Ok(32) => Ok(Some(Keys::new(&[*key])?)),
        _ => Err(Error::store(format!(
            "{} is not an encryption key (32 bytes in base64): restore it from a backup, or set encryption_key.",
            path.display()
        ))),
    }
}

/// Makes the file, or reads it if another process is faster. A reader never sees half a key.
pub fn create(database: &Path) -> Result<Keys> {
    let path = path_of(database);
    let key = Zeroizing::new(random::<32>()?);
    let text = Zeroizing::new(STANDARD.encode(*key) + "\n");
    let draft = files::beside(&path, &format!(".{:016x}", u64::from_be_bytes(random()?)));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| publish(&draft, &path));
    let _ = fs::remove_file(&draft);
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(files::explain("make", &path, &error)),
    }
    // Also after another process's: it may not have got so far.
    files::sync_directory_of(&path)?;
    read(database)?.ok_or_else(|| files::explain("read", &path, &io::ErrorKind::NotFound.into()))
}

/// Gives a file its name unless the name is taken.
fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        // A file system without hard links.
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            Ok(renameat_with(CWD, draft, CWD, path, RenameFlags::NOREPLACE)?)
        }
        linked => linked,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn everybody_gets_the_winners_key() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("s.db");
        assert!(read(&database).unwrap().is_none());
        let ids: Vec<_> = std::thread::scope(|scope| {
            let made: Vec<_> = (0..16).map(|_| scope.spawn(|| create(&database).unwrap().sealing())).collect();
            made.into_iter().map(|made| made.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
        assert_eq!(fs::metadata(path_of(&database)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "drafts are removed");
    }

    #[test]
    fn a_damaged_key_file_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("s.db");
        for text in ["", "AAAA", &"A".repeat(5000), "not base64 at all, not base64 at all, 12345"] {
            fs::write(path_of(&database), text).unwrap();
            let error = read(&database).unwrap_err();
            assert!(error.message.contains("restore it from a backup"), "{error}");
            assert!(create(&database).is_err());
            assert_eq!(fs::read_to_string(path_of(&database)).unwrap(), *text);
        }
    }
}
