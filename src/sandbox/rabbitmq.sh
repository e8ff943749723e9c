# Past Debian's wrapper in /usr/sbin, which insists on root or the user rabbitmq, unless PATH leads to another one.
case $(command -v rabbitmq-server) in
'' | /sbin/* | /usr/sbin/*) PATH=/usr/lib/rabbitmq/bin:$PATH ;;
esac
last_signal=KILL

# An epmd of our own: the machine's may be missing, or belong to somebody's broker.
prepare() {
    command -v rabbitmq-server && command -v epmd || exit 127
    touch "$DIR/rabbitmq-env.conf"
    env -i PATH="$PATH" epmd -address 127.0.0.1 -port "$EPMD_PORT" &
}

# RUNNING_UNDER_SYSTEMD makes the script exec the VM, so that the pid is the VM's. Schedulers bound to cores, as they are by
# default, wait there for whatever else runs on them. A channel that publishes is held up at 32 messages that are not in the
# log yet, which is meant for queues with many publishers. Half of the cores are for who publishes, consumes and stores: a
# scheduler that shares its core with them hands each message on later, and one by one.
serve() {
    cd "$DIR" || exit
    SCHEDULERS=$((($(nproc) + 1) / 2))
    exec env -i PATH="$PATH" HOME="$DIR" LANG=C.UTF-8 RUNNING_UNDER_SYSTEMD=1 \
        ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$EPMD_PORT" ERL_FLAGS='-start_epmd false' \
        RABBITMQ_NODENAME="paxflow-$DIST_PORT@localhost" RABBITMQ_DIST_PORT="$DIST_PORT" \
        RABBITMQ_SCHEDULER_BIND_TYPE=u \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S $SCHEDULERS:$SCHEDULERS -kernel inet_dist_use_interface {127,0,0,1} -rabbit quorum_commands_soft_limit 256" \
        RABBITMQ_CONF_ENV_FILE="$DIR/rabbitmq-env.conf" RABBITMQ_CONFIG_FILE="$DIR/rabbitmq.conf" \
        RABBITMQ_ADVANCED_CONFIG_FILE="$DIR/advanced.config" RABBITMQ_ENABLED_PLUGINS_FILE="$DIR/enabled_plugins" \
        RABBITMQ_MNESIA_BASE="$DIR/data" RABBITMQ_LOG_BASE="$DIR/logs" RABBITMQ_LOGS=- \
        RABBITMQ_PID_FILE="$DIR/pid" RABBITMQ_GENERATED_CONFIG_DIR="$DIR/config" \
        rabbitmq-server
}

forget() { :; }
