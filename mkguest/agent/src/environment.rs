//! The environment of what mvm-confine starts: the image's base, the user's own, the
//! service's, and the config drive's, each winning over those before it.

use crate::accounts::Account;
use crate::site::Site;
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;

const BASE: &str = "/etc/mvm/environment.json";
const CONFIG_DRIVE: &str = "/mnt/config/mvm-env.env";

/// What every shell exports unasked.
const SHELLS_OWN: [&[u8]; 4] = [b"OLDPWD", b"PWD", b"SHLVL", b"_"];

/// An environment, and how many lines of the config drive's file were left out of it.
pub struct Environment {
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
    pub skipped_lines: usize,
}

/// Puts the environment of `account` together; the error names the file that cannot be
/// read. A config drive without the file adds nothing.
pub fn of(
    account: &Account,
    own: &BTreeMap<String, String>,
    site: &Site,
) -> Result<Environment, String> {
    let unreadable = |path: &str, error: &dyn std::fmt::Display| {
        format!("cannot read the environment in {path}: {error}")
    };
    let base = site.read(BASE).map_err(|error| unreadable(BASE, &error))?;
    let base: BTreeMap<String, String> =
        serde_json::from_slice(&base).map_err(|error| unreadable(BASE, &error))?;
    let drive = match site.read(CONFIG_DRIVE) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        content => content.map_err(|error| unreadable(CONFIG_DRIVE, &error))?,
    };
    let mut variables = BTreeMap::new();
    let mut set = |key: &str, value: &str| variables.insert(key.into(), value.into());
    base.iter().for_each(|(key, value)| drop(set(key, value)));
    set("HOME", &account.home);
    set("USER", &account.name);
    own.iter().for_each(|(key, value)| drop(set(key, value)));
    let skipped_lines = add_lines(&mut variables, &drive);
    Ok(Environment {
        variables,
        skipped_lines,
    })
}

/// Adds the lines `KEY=VALUE` and `export KEY=VALUE`, each value verbatim to the end of
/// its line; returns how many lines are neither such, nor empty, nor a comment.
fn add_lines(variables: &mut BTreeMap<Vec<u8>, Vec<u8>>, content: &[u8]) -> usize {
    let mut skipped = 0;
    for line in content.split(|&byte| byte == b'\n') {
        let assignment = line.strip_prefix(b"export ").unwrap_or(line);
        let parts: Vec<&[u8]> = assignment.splitn(2, |&byte| byte == b'=').collect();
        match parts[..] {
            [key, value] if is_key(key) && !value.contains(&0) => {
                variables.insert(key.into(), value.into());
            }
            _ if line.trim_ascii().is_empty() || line.starts_with(b"#") => {}
            _ => skipped += 1,
        }
    }
    skipped
}

fn is_key(key: &[u8]) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    key.first().is_some_and(|first| !first.is_ascii_digit()) && key.iter().all(letter)
}

impl Environment {
    /// What is left of this environment, and what has come to it, in a shell's hands that
    /// exported `exported`.
    pub fn through_shell(
        &self,
        exported: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Environment {
        let exported = exported
            .into_iter()
            .map(|(key, value)| (key.into_vec(), value.into_vec()))
            .filter(|(key, _)| !SHELLS_OWN.contains(&&key[..]) || self.variables.contains_key(key));
        // Some shells hand on no variable that they could not name.
        let unnameable = self.variables.iter().filter(|(key, _)| !is_key(key));
        let unnameable = unnameable.map(|(key, value)| (key.clone(), value.clone()));
        Environment {
            variables: unnameable.chain(exported).collect(),
            skipped_lines: 0,
        }
    }

    /// The variables as a program gets them; the error names one that holds a NUL.
    pub fn strings(&self) -> Result<Vec<CString>, String> {
        self.variables
            .iter()
            .map(|(key, value)| {
                CString::new([key, value.as_slice()].join(&b'=')).map_err(|_| {
                    let key = String::from_utf8_lossy(key);
                    format!(
                        "the environment variable {key:?} holds a NUL, which no program can get"
                    )
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(content: &[u8]) -> (BTreeMap<Vec<u8>, Vec<u8>>, usize) {
        let mut variables = BTreeMap::from([(b"A".to_vec(), b"before".to_vec())]);
        let skipped = add_lines(&mut variables, content);
        (variables, skipped)
    }

    #[test]
    fn a_value_is_everything_up_to_the_end_of_its_line() {
        let hostile: &[u8] = b"A= \"x\" '$HOME' `id` ${y} \\n # =\xff \nexport B=\nC=1";
        let (variables, skipped) = lines(hostile);
        let expected: [(&[u8], &[u8]); 3] = [
            (b"A", b" \"x\" '$HOME' `id` ${y} \\n # =\xff "),
            (b"B", b""),
            (b"C", b"1"),
        ];
        let expected = expected.map(|(key, value)| (key.to_vec(), value.to_vec()));
        assert_eq!((variables, skipped), (BTreeMap::from(expected), 0));
    }

    #[test]
    fn what_assigns_nothing_is_counted_and_changes_nothing() {
        let (variables, skipped) =
            lines(b"=x\n1A=x\nA B=x\nA\0=x\nA=\0\necho hi\nexport A\n A=x\n");
        assert_eq!(skipped, 8);
        assert_eq!(variables.len(), 1);
        assert_eq!(variables[&b"A"[..]], b"before");
    }

    #[test]
    fn a_shell_changes_removes_and_adds_variables_but_not_by_its_own_habits() {
        let variables = [("A", "1"), ("B", "1"), ("SHLVL", "5"), ("not.a.name", "1")];
        let variables = variables.map(|(key, value)| (key.into(), value.into()));
        let before = Environment {
            variables: variables.into(),
            skipped_lines: 1,
        };
        let exported = [
            ("A", "2"),
            ("C", "3"),
            ("PWD", "/"),
            ("SHLVL", "6"),
            ("_", "x"),
        ];
        let exported = exported.map(|(key, value)| (key.into(), value.into()));
        let after: Vec<String> = before
            .through_shell(exported)
            .strings()
            .unwrap()
            .into_iter()
            .map(|variable| variable.into_string().unwrap())
            .collect();
        assert_eq!(after, ["A=2", "C=3", "SHLVL=6", "not.a.name=1"]);
    }

    #[test]
    fn comments_and_empty_lines_are_no_fault() {
        assert_eq!(lines(b"# a comment\n\n  \n").1, 0);
    }

    #[test]
    fn the_last_assignment_wins() {
        assert_eq!(lines(b"A=1\nA=2\n").0[&b"A"[..]], b"2");
    }
}
