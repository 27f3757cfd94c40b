//! From a service name to the path of its control socket.

use std::path::{Path, PathBuf};

use doorbell_shm::sys;

use crate::error::NameError;

/// Returns the socket's path: `name` itself if it holds a slash, else `NAME.sock` in the user's runtime directory.
///
/// # Errors
///
/// [`NameError`] if the name has characters that could leave the directory, or the directory is missing or open to others.
pub(crate) fn resolve(name: &str) -> Result<PathBuf, NameError> {
    if name.contains('/') {
        return Ok(Path::new(name).to_owned());
    }
    if !is_valid(name) {
        return Err(NameError::Invalid {
            name: name.to_owned(),
        });
    }
    let directory = sys::runtime_directory().map_err(NameError::Directory)?;
    Ok(directory.join(format!("{name}.sock")))
}

fn is_valid(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_a_slash_is_a_path() {
        assert_eq!(
            resolve("/run/x/engine.sock").unwrap(),
            Path::new("/run/x/engine.sock")
        );
        assert_eq!(resolve("./engine").unwrap(), Path::new("./engine"));
    }

    #[test]
    fn name_that_could_leave_the_directory_is_refused() {
        for name in ["", "..", ".hidden", "a b", "a\0b", &"x".repeat(65)] {
            assert!(
                matches!(resolve(name), Err(NameError::Invalid { .. })),
                "{name:?}"
            );
        }
    }
}
