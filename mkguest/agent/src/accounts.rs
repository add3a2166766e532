//! Users and groups as /etc/passwd and /etc/group (passwd(5), group(5)) say them.
//! Which of them may do what is left to the callers.

/// A user and all groups that the user is in.
#[derive(Debug, PartialEq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// The primary group and every group that lists the user, each once.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Finds the user called `name`; the error says which line is missing or does not parse.
pub fn find(name: &str, passwd: &str, group: &str) -> Result<Account, String> {
    let fields: Vec<&str> = entries(passwd)
        .find(|fields| fields[0] == name)
        .ok_or_else(|| format!("user {name} is not in /etc/passwd"))?;
    let [_, _, uid, gid, _, home, _] = fields[..] else {
        return Err(format!(
            "the line of user {name} in /etc/passwd does not have 7 fields"
        ));
    };
    let number = |text: &str| {
        // The highest number is the kernel's "leave it as it is", never an id.
        text.parse::<u32>()
            .ok()
            .filter(|&id| id != u32::MAX && !text.starts_with('+'))
            .ok_or_else(|| format!("the line of user {name} holds {text:?} where an id belongs"))
    };
    let (uid, gid) = (number(uid)?, number(gid)?);
    let mut groups = vec![gid];
    for fields in entries(group) {
        let [_, _, id, members] = fields[..] else {
            continue;
        };
        if members.split(',').any(|member| member == name) {
            let id = number(id)?;
            if !groups.contains(&id) {
                groups.push(id);
            }
        }
    }
    Ok(Account {
        name: name.to_owned(),
        uid,
        gid,
        groups,
        home: home.to_owned(),
    })
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        web:x:1100:1100::/home/web:/bin/sh\n\
        short:x:1:1\n\
        negative:x:-1:1::/:/bin/sh\n\
        kept:x:4294967295:1::/:/bin/sh\n";
    const GROUP: &str =
        "root:x:0:\nmvm:x:900:db,web\nweb:x:1100:web\nbroken\nwebby:x:7:webb,xweb\n";

    #[test]
    fn a_user_is_found_with_the_groups_that_list_it() {
        assert_eq!(
            find("web", PASSWD, GROUP),
            Ok(Account {
                name: "web".to_owned(),
                uid: 1100,
                gid: 1100,
                groups: vec![1100, 900],
                home: "/home/web".to_owned(),
            })
        );
    }

    #[test]
    fn a_user_who_is_not_there_is_named() {
        let error = find("we", PASSWD, GROUP).unwrap_err();
        assert_eq!(error, "user we is not in /etc/passwd");
    }

    #[test]
    fn a_line_that_does_not_parse_is_refused() {
        for name in ["short", "negative", "kept"] {
            let error = find(name, PASSWD, GROUP).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_group_id_that_does_not_parse_is_refused_rather_than_left_out() {
        assert!(find("web", PASSWD, "mvm:x:none:web\n").is_err());
    }
}
