//! Where data lies unless somebody says otherwise. The store makes the folder and everything in it.

use std::path::PathBuf;

/// `$XDG_DATA_HOME/talewire`, or `~/.local/share/talewire`, or `./data` for who has no home.
pub(crate) fn default_folder() -> PathBuf {
    folder_of(std::env::var_os("XDG_DATA_HOME").map(PathBuf::from), std::env::var_os("HOME").map(PathBuf::from))
}

fn folder_of(xdg: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    // The XDG specification: a relative path is to be ignored.
    let xdg = xdg.filter(|path| path.is_absolute());
    let home = home.filter(|path| path.is_absolute()).map(|home| home.join(".local/share"));
    xdg.or(home).map_or_else(|| PathBuf::from("data"), |base| base.join("talewire"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn data_lies_where_the_system_keeps_it() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(folder_of(path("/x"), path("/home/ana")), Path::new("/x/talewire"));
        assert_eq!(folder_of(path("x"), path("/home/ana")), Path::new("/home/ana/.local/share/talewire"));
        assert_eq!(folder_of(None, None), Path::new("data"));
    }
}
