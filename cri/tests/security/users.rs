//! Who a container's processes are.

use berth_cri::{ContainerSecurity, ContainerUser, Engine, EngineError, SupplementalGroupsPolicy};

use crate::bench::Bench;

fn web() -> ContainerSecurity {
    ContainerSecurity {
        run_as_user: Some(1000),
        supplemental_groups: vec![1234],
        ..Default::default()
    }
}

#[test]
fn groups_are_merged_or_strict_and_told_in_the_status() {
    Bench::new().with(
        |_| (),
        async |pod| {
            for (policy, groups) in [
                (SupplementalGroupsPolicy::Merge, vec![1000, 1234, 50000]),
                (SupplementalGroupsPolicy::Strict, vec![1000, 1234]),
            ] {
                let security = ContainerSecurity {
                    supplemental_groups_policy: policy,
                    ..web()
                };
                let id = pod.idle(&format!("{policy:?}"), security).await;
                let status = pod.engine.container_status(&id).await.unwrap();
                let expected = ContainerUser {
                    uid: 1000,
                    gid: 1000,
                    supplemental_groups: groups.clone(),
                };
                assert_eq!(status.user, Some(expected));
                assert_eq!(status.stop_signal, 15);
                let names: Vec<String> = groups.iter().map(u32::to_string).collect();
                assert_eq!(pod.exec(&id, "id -G").await, names.join(" ") + "\n");
            }
        },
    );
}

#[test]
fn a_user_may_be_a_name_of_the_image() {
    Bench::new().with(
        |_| (),
        async |pod| {
            let named = |name: &str| ContainerSecurity {
                run_as_username: name.to_owned(),
                run_as_group: Some(7),
                ..Default::default()
            };
            let printed = pod.run("id -u; id -g; id -G; echo $HOME", named("web")).await;
            assert_eq!(printed, "1000\n7\n7 50000\n/srv\n");
            let refused = pod.refusal(pod.script("ghost", "true", named("ghost"))).await;
            assert!(
                matches!(&refused, EngineError::InvalidArgument(why) if why.contains("\"ghost\"")),
                "{refused:?}"
            );
        },
    );
}
