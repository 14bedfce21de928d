package io.qnbd.it.container;

import static java.util.Objects.requireNonNull;

import com.github.dockerjava.api.model.AccessMode;
import com.github.dockerjava.api.model.Bind;
import com.github.dockerjava.api.model.Capability;
import com.github.dockerjava.api.model.Volume;
import io.qnbd.it.Repository;
import io.qnbd.it.Shell;
import java.net.URI;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.testcontainers.containers.GenericContainer;
import org.testcontainers.containers.wait.strategy.Wait;
import org.testcontainers.utility.DockerImageName;

/** The images that the repository builds, built once, and containers of them. */
public final class Containers {
  static final int PORT = 10809;

  private static final Duration BUILD_MAX = Duration.ofMinutes(7);
  private static final Duration START_MAX = Duration.ofMinutes(2);
  private static final long MEBIBYTE = 1 << 20;

  /** Who the image's processes are. */
  static final String USER = "65532";

  private Containers() {}

  /** Built by {@code docker/build}, as the README says. */
  static String qnbdImage() {
    return Qnbd.IMAGE;
  }

  /** Has fio, bonnie++, and the tools of libnbd and QEMU. */
  public static String clientImage() {
    return Client.IMAGE;
  }

  private static final class Qnbd {
    static final String IMAGE = build("qnbd-it", "docker/build", "qnbd-it");
  }

  private static final class Client {
    static final String IMAGE =
        build("qnbd-client-it", "docker", "build", "-q", "-t", "qnbd-client-it", "docker/client");
  }

  /**
   * Runs a build of {@code packaging}, which need not do again what is done, and says what it made.
   */
  public static Path packaged(String command) {
    String printed = inRepository(BUILD_MAX, command).mustExit(0).out().strip();
    return Path.of(printed.substring(printed.lastIndexOf('\n') + 1));
  }

  private static String build(String image, String... command) {
    inRepository(BUILD_MAX, "it-tests/containers/base-image").mustExit(0);
    inRepository(BUILD_MAX, command).mustExit(0);
    return image;
  }

  /** Runs a command line in the repository's directory. */
  static Shell.Result inRepository(Duration patience, String... command) {
    String[] words = new String[command.length + 4];
    System.arraycopy(
        new String[] {"env", "-C", Repository.root().toString(), "LC_ALL=C.UTF-8"}, 0, words, 0, 4);
    System.arraycopy(command, 0, words, 4, command.length);
    return Shell.run(patience, words);
  }

  /** A server under all the restrictions that the manual recommends, not started yet. */
  static GenericContainer<?> server(int megabytes, String... serveArguments) {
    String[] command = new String[serveArguments.length + 1];
    command[0] = "serve";
    System.arraycopy(serveArguments, 0, command, 1, serveArguments.length);
    return new GenericContainer<>(DockerImageName.parse(qnbdImage()))
        .withCommand(command)
        .withExposedPorts(PORT)
        .withCreateContainerCmdModifier(create ->
            requireNonNull(create.getHostConfig())
                .withReadonlyRootfs(true)
                .withCapDrop(Capability.ALL)
                .withSecurityOpts(List.of("no-new-privileges"))
                .withMemory(megabytes * MEBIBYTE)
                .withMemorySwap(megabytes * MEBIBYTE))
        .waitingFor(Wait.forLogMessage(".*qnbd: serving .*\\n", 1).withStartupTimeout(START_MAX));
  }

  /** The same with a directory of the host as its images. */
  static GenericContainer<?> server(int megabytes, Path images, String... serveArguments) {
    return withImages(server(megabytes, serveArguments), images, AccessMode.rw);
  }

  /**
   * Adds a directory of the host as the volume. Testcontainers' own call for it starts a container
   * of an image that no registry may be there to give.
   */
  static GenericContainer<?> withImages(
      GenericContainer<?> server, Path images, AccessMode access) {
    Bind bind = new Bind(images.toString(), new Volume("/images"), access);
    return server.withCreateContainerCmdModifier(
        create -> requireNonNull(create.getHostConfig()).withBinds(bind));
  }

  /** A machine with the clients, which waits for commands. */
  static GenericContainer<?> client() {
    return new GenericContainer<>(DockerImageName.parse(clientImage()))
        .withCommand("sleep", "infinity");
  }

  /** Where a server's export is reached from the host. */
  static URI uri(GenericContainer<?> server) {
    return URI.create("nbd://127.0.0.1:" + server.getMappedPort(PORT));
  }

  /** Where other containers of the engine's network reach it. */
  static String inside(GenericContainer<?> server) {
    return "nbd://" + address(server) + ":" + PORT;
  }

  private static String address(GenericContainer<?> server) {
    return Shell.check(
            "docker",
            "inspect",
            "-f",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            server.getContainerId())
        .strip();
  }

  /** Runs a command in a container; it must succeed. */
  static String exec(GenericContainer<?> container, String... command) {
    String[] words = new String[command.length + 3];
    words[0] = "docker";
    words[1] = "exec";
    words[2] = container.getContainerId();
    System.arraycopy(command, 0, words, 3, command.length);
    return Shell.check(words);
  }

  /** Stops it as {@code docker stop} does; it must exit with 0 and say nothing odd. */
  static void stop(GenericContainer<?> server) {
    Shell.check("docker", "stop", "-t", "30", server.getContainerId());
    mustHaveExited(server, 0);
    String errors = Shell.run("docker", "logs", server.getContainerId()).err();
    if (errors.contains("Exception") || errors.contains("\tat ")) {
      throw new AssertionError("a stack trace on standard error\n" + errors);
    }
  }

  static void mustHaveExited(GenericContainer<?> server, int code) {
    String state =
        Shell.check(
            "docker",
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.OOMKilled}} {{.State.ExitCode}}",
            server.getContainerId());
    if (!state.strip().equals("exited false " + code)) {
      throw new AssertionError(
          "the container is '%s'\n%s"
              .formatted(state.strip(), Shell.run("docker", "logs", server.getContainerId())));
    }
  }

  /** Options of a file system in memory for the image's user. */
  static Map<String, String> memoryVolume(int megabytes) {
    return Map.of(
        "/images", "rw,size=%dm,uid=%s,gid=%s,mode=0755".formatted(megabytes, USER, USER));
  }
}
