#!/bin/sh
# Runs qnbd with the Java run-time that lies beside it: lib/runtime, lib/app and lib/native of this directory's parent.
#
#   QNBD_JAVA_OPTS  options for Java, separated by blanks, for example -Xmx2g
set -u
self=$(readlink -f -- "$0") || { echo "qnbd: cannot find the directory of $0" >&2; exit 1; }
lib=${self%/bin/*}/lib

# Java reads file names by the locale; without one it knows ASCII only.
case ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} in
  *[Uu][Tt][Ff]*8*) ;;
  *) LC_ALL=C.UTF-8; export LC_ALL ;;
esac

# All jars, in an order that does not change: Java ignores the file of classes that are loaded and linked already when they
# differ from those that it saw. It takes another directory for the class path, but not for the module path.
classes=
for jar in "$lib"/app/*.jar; do
  classes=${classes:+$classes:}$jar
done
quick=
if [ -e "$lib/qnbd.aot" ]; then
  quick=-XX:AOTCache=$lib/qnbd.aot
fi

# What is over soon is over sooner without the compiler for what runs long; but only that one knows to encrypt in hardware.
short=
command=
for word in "$@"; do
  case $word in
    -*) ;;
    *) command=$word; break ;;
  esac
done
case "$command $*" in
  serve\ * | bench\ * | compare\ * | rebase\ * | commit\ * | compact\ * | *passphrase* | *encrypt*) ;;
  *) short=-XX:TieredStopAtLevel=1 ;;
esac

# The native libraries are found in a directory, so that nothing is unpacked: the root file system may be read-only and
# /tmp not executable. How much memory requests may take the server says, which is more than a small heap. What the parent
# is, --exit-with-parent must know before Java is up.
# shellcheck disable=SC2086 # the options are split at blanks on purpose
exec "$lib/runtime/bin/java" -XX:+UseCompactObjectHeaders ${quick:+"$quick"} -Xlog:aot=off -Xlog:cds=off $short \
  -Dio.netty.jfr.enabled=false -Djdk.reflect.useNativeAccessorOnly=true --sun-misc-unsafe-memory-access=allow \
  -XX:MaxDirectMemorySize=1t \
  --enable-native-access=ALL-UNNAMED -cp "$classes" \
  -Djava.library.path="$lib/native" -DZstdNativePath="$lib/native/libzstd-jni.so" -Dqnbd.parent.pid="$PPID" \
  ${QNBD_JAVA_OPTS:-} io.qnbd.server.Qnbd "$@"
