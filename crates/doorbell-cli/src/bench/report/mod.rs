//! A page with plots and tables, in one file that needs nothing else: no network, no scripts.

mod machine;
mod page;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::output::Section;

/// Makes sure that the page can be written.
///
/// # Errors
///
/// If its directory does not exist or does not let us.
pub(crate) fn check(path: &Path) -> anyhow::Result<()> {
    let is_page = path
        .extension()
        .is_some_and(|extension| extension == "html" || extension == "htm");
    ensure!(
        is_page,
        "the report is a page: give it a name that ends in .html instead of {}",
        path.display()
    );
    let opened = fs::OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| explain(path))?;
    Ok(())
}

/// Writes the page.
///
/// # Errors
///
/// If it cannot be written.
pub(crate) fn write(path: &Path, sections: &[Section], is_quick: bool) -> anyhow::Result<()> {
    let page = page::of_sections(sections, &machine::facts(), is_quick)?;
    fs::write(path, page).with_context(|| explain(path))?;
    eprintln!("the report is in {}", path.display());
    Ok(())
}

fn explain(path: &Path) -> String {
    format!("cannot write the report {}", path.display())
}
