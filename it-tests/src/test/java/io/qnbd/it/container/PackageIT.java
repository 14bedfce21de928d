package io.qnbd.it.container;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.Images;
import io.qnbd.it.Shell;
import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;

/** The archive and the Debian package, installed where no Java is, and used. */
final class PackageIT {
  /** Runs a script in a new container that finds the packages in /dist. */
  private static Shell.Result inBareContainer(Path dist, String script) {
    return Shell.run(
        "docker",
        "run",
        "--rm",
        "-v",
        dist + ":/dist:ro",
        Containers.clientImage(),
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script);
  }

  @Test
  void theArchiveServesWhereNoJavaIs() {
    Path archive = Containers.packaged("packaging/build-tar");
    inBareContainer(
            archive.resolveSibling("."),
            """
            ! command -v java
            cd /opt
            tar -xzf /dist/%s
            cd /tmp
            /opt/qnbd-*/bin/qnbd --version
            /opt/qnbd-*/bin/qnbd serve --create 64M --run '
              qemu-io -f raw -c "write -P 7 0 1M" -c "read -P 7 0 1M" "$uri"' disk.qcow2
            qemu-img check disk.qcow2
            /opt/qnbd-*/bin/qnbd serve --tls-generate tls
            # From what is loaded and linked already; a slow start would show as a run-time that ignores its cache.
            QNBD_JAVA_OPTS=-Xlog:class+load /opt/qnbd-*/bin/qnbd --version >loaded
            [ "$(grep -c 'shared objects file' loaded)" -gt 1000 ]
            """
                .formatted(archive.getFileName()))
        .mustExit(0);
  }

  @Test
  void theDebianPackageInstallsServesAndGoes() {
    Path deb = Containers.packaged("packaging/build-deb");
    inBareContainer(
            deb.resolveSibling("."),
            """
            apt-get install -y /dist/%s >log 2>&1 || { cat log; exit 1; }
            [ "$(stat -c '%%U %%a' /var/lib/qnbd)" = 'qnbd 750' ]
            cat >>/etc/qnbd/qnbd.toml <<END
            [[export]]
            name = "disk"
            path = "/var/lib/qnbd/disk.qcow2"
            create = "64M"
            END
            install -d -o qnbd /run/qnbd
            # What the unit runs, as the user of the unit.
            start=$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/qnbd.service)
            setpriv --reuid qnbd --regid qnbd --clear-groups $start >ready 2>errors &
            server=$!
            for _ in {1..300}; do grep -q serving ready && break; sleep 0.2; done
            qemu-io -f raw -c 'write -P 7 0 1M' -c 'read -P 7 0 1M' nbd://127.0.0.1/disk
            qnbd ctl /run/qnbd/control.sock exports
            kill -HUP $server
            kill $server
            wait $server
            qemu-img check /var/lib/qnbd/disk.qcow2
            dpkg -r qnbd
            [ ! -e /usr/bin/qnbd ] && [ -e /etc/qnbd/qnbd.toml ]
            dpkg -P qnbd
            [ ! -e /etc/qnbd/qnbd.toml ] && [ -e /var/lib/qnbd/disk.qcow2 ]
            """
                .formatted(deb.getFileName()))
        .mustExit(0);
  }

  @Test
  void itsUnitsManualPagesAndCompletionsAreWellFormed() throws IOException {
    Path deb = Containers.packaged("packaging/build-deb");
    try (Images sandbox = Images.inTempDir()) {
      Path root = sandbox.path("root");
      Shell.check("dpkg-deb", "-x", deb.toString(), root.toString());
      Shell.Result pages =
          Shell.run(
              "bash",
              "-c",
              "for page in %s/usr/share/man/man1/*; do zcat $page | groff -man -Tutf8 -ww -z || exit 1; done"
                  .formatted(root));
      assertEquals("", pages.mustExit(0).err());
      // What the units refer to and the package does not have.
      Shell.check(
          "bash",
          "-ec",
          "mkdir -p %1$s/bin; cp /bin/sh %1$s/bin; cp /usr/lib/systemd/system/*.target %1$s/usr/lib/systemd/system"
              .formatted(root));
      Shell.Result units =
          Shell.run(
              "systemd-analyze",
              "verify",
              "--man=no",
              "--root=" + root,
              "qnbd.service",
              "qnbd.socket");
      assertEquals("", units.mustExit(0).err());
      Shell.run(
              "systemd-analyze",
              "security",
              "--offline=true",
              "--threshold=20",
              "--root=" + root,
              "qnbd.service")
          .mustExit(0);

      String bash =
          Shell.check(
              "bash",
              "-ec",
              """
              source %s/usr/share/bash-completion/completions/qnbd
              COMP_WORDS=(qnbd serve --cac) COMP_CWORD=2
              _qnbd
              echo "${COMPREPLY[@]}"
              COMP_WORDS=(qnbd ctl /run/q snapshot cr) COMP_CWORD=4
              _qnbd
              echo "${COMPREPLY[@]}"
              """
                  .formatted(root));
      assertEquals("--cache\ncreate\n", bash);
      String fish =
          Shell.check(
              "fish",
              "-c",
              "source %s/usr/share/fish/vendor_completions.d/qnbd.fish; complete -C 'qnbd serve --cac'"
                  .formatted(root));
      assertTrue(fish.startsWith("--cache\t"), fish);
      Shell.check("zsh", "-n", root + "/usr/share/zsh/vendor-completions/_qnbd");
    }
  }
}
