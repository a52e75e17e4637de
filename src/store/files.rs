//! Files and directories of a local store, and what to do when they make trouble.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// `<path><suffix>`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The one name of a database file: two clients that reach it through different relative paths or symbolic links share
/// one store. The file need not exist; its directory must, or is made (for this user only) if `make_directory`.
pub fn canonical(path: &Path, make_directory: bool) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::store(format!("the store's path {} names no file: give a file's path", path.display())));
    };
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    if make_directory {
        make_durable(directory).map_err(|error| explain("make", directory, &error))?;
    }
    let whole = fs::canonicalize(directory).map_err(|error| explain("find", directory, &error))?.join(name);
    match fs::symlink_metadata(&whole) {
        Ok(found) if found.is_symlink() => fs::canonicalize(&whole).map_err(|error| explain("follow", &whole, &error)),
        Ok(found) if found.is_dir() => Err(Error::store(format!(
            "the store's path {} is a directory: give a file's path, {}/sessions.db for example",
            whole.display(),
            whole.display()
        ))),
        _ => Ok(whole),
    }
}

fn make_durable(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_durable(parent)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(parent)?.sync_all(),
    }
}

/// Makes a file's name as durable as its content.
pub fn sync_directory_of(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| explain("make durable", directory, &error))
}

/// `cannot VERB PATH: …, and what to do`.
pub fn explain(verb: &str, path: &Path, error: &io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "it does not exist: create the directory, or set store to another path",
        io::ErrorKind::PermissionDenied => "permission denied: give this user access, or set store to another path",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full: free some space",
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only: set store to a path that can be written, or renews to false for a client \
             that only uses what others renew"
        }
        io::ErrorKind::NotADirectory => "a part of the path is not a directory: set store to another path",
        _ => "",
    };
    let why = if advice.is_empty() { error.to_string() } else { advice.to_owned() };
    Error::store(format!("cannot {verb} {}: {why}.", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn one_file_has_one_name() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("real");
        fs::create_dir(&real).unwrap();
        symlink(&real, directory.path().join("link")).unwrap();
        symlink(real.join("a.db"), directory.path().join("b.db")).unwrap();
        let name = canonical(&real.join("a.db"), false).unwrap();
        assert_eq!(canonical(&directory.path().join("link/a.db"), false).unwrap(), name);
        assert_eq!(canonical(&real.join("../real/a.db"), false).unwrap(), name);
        fs::write(&name, "").unwrap();
        assert_eq!(canonical(&directory.path().join("b.db"), false).unwrap(), name);
    }

    #[test]
    fn only_a_default_directory_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/sessions.db");
        let error = canonical(&path, false).unwrap_err();
        assert!(error.message.contains("create the directory"), "{error}");
        canonical(&path, true).unwrap();
        for made in ["a", "a/b"] {
            let mode = fs::metadata(directory.path().join(made)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        let error = canonical(&directory.path().join("a/b"), false).unwrap_err();
        assert!(error.message.contains("is a directory"), "{error}");
    }
}
